"""Between Kafka's bytes and the rows of the rules: JSON in, JSON out."""

from collections.abc import Callable
from typing import Annotated

import msgspec

from dataflow.rules.rows import SECOND, Event, Purchase, Row

# of the years 1 and 10000: nobody's clock is outside, but a clock that counts milliseconds is
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_800

_Page = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Unreadable(Exception):
    """A message is not a row; the text says why."""


class _EventText(msgspec.Struct, gc=False):
    event_type: str
    user_id: int
    page_id: _Page
    timestamp: float
    session_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    amount: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _PurchaseText(msgspec.Struct, gc=False):
    amount: msgspec.Raw
    user_id: int
    page_id: _Page
    timestamp: float


_event = msgspec.json.Decoder(_EventText).decode
_purchase = msgspec.json.Decoder(_PurchaseText).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode

Decode = Callable[[bytes | None, int], Row]  # of a message's value and position


def decode_event(value: bytes | None, position: int) -> Event:
    """Reads a message of ``user-events``. Raises Unreadable."""
    text = _parse(_event, value)
    clashes = text.session_id is not msgspec.UNSET or text.amount is not msgspec.UNSET
    return Event(_time(text), b"%d" % text.user_id, value, position, text.page_id, text.event_type, clashes)


def decode_purchase(value: bytes | None, position: int) -> Purchase:
    """Reads a message of ``purchases``. Raises Unreadable."""
    text = _parse(_purchase, value)
    amount = bytes(text.amount)
    if amount[0] not in b"-0123456789":
        raise Unreadable("amount is not a number")
    if abs(float(amount)) == float("inf"):
        raise Unreadable("amount is out of range")
    return Purchase(_time(text), b"%d" % text.user_id, value, position, text.page_id, amount)


def encode_visit(event: Event, session_id: bytes, amount: bytes) -> bytes:
    """The event's own text, and two fields more."""
    value = _without_added_fields(event.value) if event.clashes else event.value
    return b'%b,"session_id":"%b","amount":%b}' % (value.rstrip()[:-1], session_id, amount)


def encode_suspicious(session_id: bytes, user: bytes, kind: int) -> bytes:
    """A row of ``suspicious-visits``."""
    return b'{"session_id":"%b","user_id":%b,"type":%d}' % (session_id, user, kind)


def _parse(decode: Callable, value: bytes | None):
    if value is None:
        raise Unreadable("the message has no value")
    try:
        if not value.isascii():
            value.decode()  # the JSON decoder does not look into fields that it skips
        return decode(value)
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise Unreadable("JSON is nested too deeply") from None
    except ValueError as error:  # msgspec's own are all of these
        raise Unreadable(str(error)) from None


def _time(text: _EventText | _PurchaseText) -> int:
    """Microseconds of a `timestamp` in seconds, which at today's size is exact to six decimals."""
    if not _FIRST_SECOND <= text.timestamp < _LAST_SECOND:
        raise Unreadable("timestamp is out of range; it must be in seconds")
    return round(text.timestamp * SECOND)


def _without_added_fields(value: bytes) -> bytes:
    """Drops an event's own `session_id` and `amount`, which would stand twice in the visit; the rest stays as text."""
    fields = _fields(value)
    kept = (_encode(name) + b":" + bytes(text) for name, text in fields.items() if name not in ("session_id", "amount"))
    return b"{" + b",".join(kept) + b"}"
