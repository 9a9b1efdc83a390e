"""Repairs a dead letter's value before it is put back: by a command, and by setting its timestamp to the present."""

import subprocess
import time

import msgspec

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_CANNOT_RUN = (126, 127)  # exit codes of a shell: not executable, not found


class NotRepaired(Exception):
    """The command failed, or the timestamp of the value cannot be set. The text says why."""


class LeftOut(Exception):
    """The command printed nothing, so the row is not to be put back."""


class CannotRun(Exception):
    """The command does not exist or cannot be executed."""


class Repair:
    """Repairs values.

    Args:
        command: shell command that reads the value from standard input and prints the new one; None: no command.
        now: whether to set `timestamp` to the present time afterwards.
    """

    def __init__(self, command: str | None, now: bool) -> None:
        self._command = command
        self._now = now

    def __call__(self, value: bytes | None) -> bytes | None:
        """Returns the new value. Raises NotRepaired, LeftOut or CannotRun."""
        if self._command is not None:
            value = self._run(self._command, value)
        return self._with_present_time(value) if self._now else value

    def _run(self, command: str, value: bytes | None) -> bytes:
        process = subprocess.run(command, shell=True, input=value or b"", capture_output=True, check=False)
        errors = process.stderr.decode(errors="replace").strip().splitlines()
        if process.returncode in _CANNOT_RUN:
            raise CannotRun(errors[-1] if errors else command)
        if process.returncode:
            raise NotRepaired(f"exit code {process.returncode}" + (f", {errors[-1]}" if errors else ""))
        new_value = process.stdout.removesuffix(b"\n")
        if not new_value:
            raise LeftOut
        return new_value

    def _with_present_time(self, value: bytes | None) -> bytes:
        try:
            fields = _fields(value or b"")
        except ValueError as error:
            raise NotRepaired(f"the value cannot be read, so its timestamp cannot be set: {error}") from None
        fields["timestamp"] = msgspec.Raw(b"%.3f" % time.time())
        return b"{" + b",".join(msgspec.json.encode(name) + b":" + bytes(raw) for name, raw in fields.items()) + b"}"
