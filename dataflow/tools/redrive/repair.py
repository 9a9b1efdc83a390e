"""Mends a letter's value before it is put back: by a command of the user's, and by the present time."""

import subprocess
import time

import msgspec

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_CANNOT_RUN = (126, 127)  # a shell's exit codes for a command that is not there


class NotRepaired(Exception):
    """The command did not manage, or the value has no timestamp to be set; the text says why."""


class LeftOut(Exception):
    """The command has answered nothing: it does not want this one to be put back."""


class CannotRun(Exception):
    """There is no such command."""


class Repair:
    """What happens to a value.

    Args:
        command: of a shell; it gets the value on standard input and answers the new one. None: it stays as it is.
        now: whether `timestamp` becomes the present time, after that.
    """

    def __init__(self, command: str | None, now: bool) -> None:
        self._command = command
        self._now = now

    def __call__(self, value: bytes | None) -> bytes | None:
        """The new value. Raises NotRepaired, LeftOut or CannotRun."""
        if self._command is not None:
            value = self._run(self._command, value)
        return self._stamp(value) if self._now else value

    def _run(self, command: str, value: bytes | None) -> bytes:
        done = subprocess.run(command, shell=True, input=value or b"", capture_output=True, check=False)
        said = done.stderr.decode(errors="replace").strip().splitlines()
        if done.returncode in _CANNOT_RUN:
            raise CannotRun(said[-1] if said else command)
        if done.returncode:
            raise NotRepaired(f"exit code {done.returncode}" + (f", {said[-1]}" if said else ""))
        answer = done.stdout.removesuffix(b"\n")
        if not answer:
            raise LeftOut
        return answer

    def _stamp(self, value: bytes | None) -> bytes:
        try:
            fields = _fields(value or b"")
        except ValueError as error:
            raise NotRepaired(f"cannot be read, so its timestamp cannot be set: {error}") from None
        fields["timestamp"] = msgspec.Raw(b"%.3f" % time.time())
        return b"{" + b",".join(msgspec.json.encode(name) + b":" + bytes(raw) for name, raw in fields.items()) + b"}"
