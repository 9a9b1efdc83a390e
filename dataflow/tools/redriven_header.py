"""The header of a row that `redrive` has put back, which names the dead letter or late event that it was."""

from typing import Protocol

REDRIVEN = "redriven-from"  # its value: "topic/partition/offset"


class MessageWithHeaders(Protocol):
    """The part of a message that `redriven_from` needs."""

    def headers(self) -> list[tuple[str, bytes]] | None: ...


def redriven_from(message: MessageWithHeaders) -> str | None:
    """The dead letter or late event that a message was, "topic/partition/offset"; None: it was not put back."""
    for name, value in message.headers() or ():
        if name == REDRIVEN:
            return value.decode(errors="replace") if value is not None else None
    return None
