"""Between Kafka's bytes and the rows of the rules: JSON in, JSON out."""

from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

import msgspec

from dataflow.clickstream.records import Event, Purchase
from dataflow.streaming.partition_reader import Unreadable
from dataflow.streaming.time import SECOND

# of the years 1 and 10000: nobody's clock is outside, but a clock that counts milliseconds is
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_800

_SECOND = float(SECOND)  # at today's size products are exact to six decimals

_Page = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


_CLOSING_BRACE = ord("}")
_OUT_OF_RANGE = "timestamp is out of range; it must be in seconds"
_UNSET = msgspec.UNSET


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


Id = TypeVar("Id", int, str)
Text = TypeVar("Text", bytes, str)


class _Remembered(dict[Id, Text]):
    """Texts of users or types that have come up lately: made once, hashed once, held once by all rows that have them.

    Args:
        make: makes a text.
        most: so many are remembered.
    """

    def __init__(self, make: Callable[[Id], Text], most: int) -> None:
        super().__init__()
        self._make = make
        self._most = most

    def __missing__(self, key: Id) -> Text:
        if len(self) >= self._most:
            self.clear()
        text = self[key] = self._make(key)
        return text


_users: _Remembered[int, bytes] = _Remembered(lambda user_id: b"%d" % user_id, 100_000)
_types: _Remembered[str, str] = _Remembered(str, 1_000)  # few, and open events are many

_event = msgspec.json.Decoder(_EventText).decode
_purchase = msgspec.json.Decoder(_PurchaseText).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


def decode_event(value: bytes | None, position: int) -> Event:
    """Reads a message of ``user-events``. Raises Unreadable."""
    try:
        if not value.isascii():
            value.decode()  # the JSON decoder does not look into fields that it skips
        text = _event(value)
    except _MISTAKES as error:
        raise _unreadable(value, error) from None
    timestamp = text.timestamp
    if not _FIRST_SECOND <= timestamp < _LAST_SECOND:
        raise Unreadable(_OUT_OF_RANGE, "time")
    return Event(
        round(timestamp * _SECOND),
        _users[text.user_id],
        value,
        position,
        text.page_id,
        _types[text.event_type],
        value[-1] == _CLOSING_BRACE and text.session_id is _UNSET and text.amount is _UNSET,
    )


def decode_purchase(value: bytes | None, position: int) -> Purchase:
    """Reads a message of ``purchases``. Raises Unreadable."""
    try:
        if not value.isascii():
            value.decode()
        text = _purchase(value)
    except _MISTAKES as error:
        raise _unreadable(value, error) from None
    if not _FIRST_SECOND <= text.timestamp < _LAST_SECOND:
        raise Unreadable(_OUT_OF_RANGE, "time")
    amount = bytes(text.amount)
    if amount[0] not in b"-0123456789":
        raise Unreadable("amount is not a number", "amount")
    if abs(float(amount)) == float("inf"):
        raise Unreadable("amount is out of range", "amount")
    return Purchase(round(text.timestamp * _SECOND), _users[text.user_id], value, position, text.page_id, amount)


def encode_visits(events: Iterable[Event], session_id: bytes, amount: bytes) -> list[bytes]:
    """Each event's own text, and two fields more."""
    more = b',"session_id":"%b","amount":%b}' % (session_id, amount)
    return [(event.value if event.plain else _made_plain(event.value))[:-1] + more for event in events]


def encode_suspicious(session_id: bytes, user: bytes, kind: int) -> bytes:
    """A row of ``suspicious-visits``."""
    return b'{"session_id":"%b","user_id":%b,"type":%d}' % (session_id, user, kind)


# what decoding raises for a message that is no row; that of msgspec is a ValueError too
_MISTAKES = AttributeError, UnicodeDecodeError, RecursionError, ValueError


def _unreadable(value: bytes | None, error: Exception) -> Unreadable:
    """Says what is wrong with a message."""
    if value is None:
        return Unreadable("the message has no value", "empty")
    if isinstance(error, UnicodeDecodeError):
        return Unreadable(f"not UTF-8: {error.reason} at byte {error.start}", "encoding")
    if isinstance(error, RecursionError):
        return Unreadable("JSON is nested too deeply", "json")
    if isinstance(error, msgspec.ValidationError):
        return Unreadable(str(error), "fields")
    if not value:
        return Unreadable("the message is empty", "empty")
    return Unreadable(str(error), "json")  # not JSON, or a number with too many digits


def _made_plain(value: bytes) -> bytes:
    """Without space at its end, and without an event's own `session_id` and `amount`, which would stand twice in the visit.

    The rest stays as text.
    """
    value = value.rstrip()
    fields = _fields(value)
    if "session_id" not in fields and "amount" not in fields:
        return value
    kept = (_encode(name) + b":" + bytes(text) for name, text in fields.items() if name not in ("session_id", "amount"))
    return b"{" + b",".join(kept) + b"}"
