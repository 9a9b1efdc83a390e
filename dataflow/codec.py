"""Between Kafka's bytes and the rows of the rules: JSON in, JSON out."""

from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec

from dataflow.rules.rows import SECOND, Event, Purchase, Row

# of the years 1 and 10000: nobody's clock is outside, but a clock that counts milliseconds is
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_800

_Page = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


_CLOSING_BRACE = ord("}")
_OUT_OF_RANGE = "timestamp is out of range; it must be in seconds"
_UNSET = msgspec.UNSET
_USERS, _TYPES = 100_000, 1_000
_users: dict[int, bytes] = {}
_types: dict[str, str] = {}


class Unreadable(Exception):
    """A message is not a row; the text says why, and `kind`, one of few words, what kind of mistake it is."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


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
    timestamp, user, event_type = text.timestamp, text.user_id, text.event_type
    if not _FIRST_SECOND <= timestamp < _LAST_SECOND:
        raise Unreadable(_OUT_OF_RANGE, "time")
    plain = value[-1] == _CLOSING_BRACE and text.session_id is _UNSET and text.amount is _UNSET
    return Event(
        round(timestamp * SECOND),  # at today's size exact to six decimals
        _users.get(user) or _user(user),
        value,
        position,
        text.page_id,
        _types.get(event_type) or _type(event_type),
        plain,
    )


def decode_purchase(value: bytes | None, position: int) -> Purchase:
    """Reads a message of ``purchases``. Raises Unreadable."""
    text = _parse(_purchase, value)
    if not _FIRST_SECOND <= text.timestamp < _LAST_SECOND:
        raise Unreadable(_OUT_OF_RANGE, "time")
    amount = bytes(text.amount)
    if amount[0] not in b"-0123456789":
        raise Unreadable("amount is not a number", "amount")
    if abs(float(amount)) == float("inf"):
        raise Unreadable("amount is out of range", "amount")
    time, user = round(text.timestamp * SECOND), _users.get(text.user_id) or _user(text.user_id)
    return Purchase(time, user, value, position, text.page_id, amount)


def encode_visits(events: Iterable[Event], session_id: bytes, amount: bytes) -> list[bytes]:
    """Each event's own text, and two fields more."""
    more = b',"session_id":"%b","amount":%b}' % (session_id, amount)
    return [(event.value if event.plain else _made_plain(event.value))[:-1] + more for event in events]


def encode_suspicious(session_id: bytes, user: bytes, kind: int) -> bytes:
    """A row of ``suspicious-visits``."""
    return b'{"session_id":"%b","user_id":%b,"type":%d}' % (session_id, user, kind)


def _parse(decode: Callable, value: bytes | None):
    try:
        if not value.isascii():
            value.decode()  # the JSON decoder does not look into fields that it skips
        return decode(value)
    except AttributeError:
        raise Unreadable("the message has no value", "empty") from None
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8: {error.reason} at byte {error.start}", "encoding") from None
    except RecursionError:
        raise Unreadable("JSON is nested too deeply", "json") from None
    except msgspec.ValidationError as error:
        raise Unreadable(str(error), "fields") from None
    except ValueError as error:  # of msgspec too: not JSON, or a number with too many digits
        if not value:
            raise Unreadable("the message is empty", "empty") from None
        raise Unreadable(str(error), "json") from None


def _user(user_id: int) -> bytes:
    """A user's text, the same object for all rows while it is remembered: made once, hashed once, held once."""
    if len(_users) >= _USERS:
        _users.clear()
    text = _users[user_id] = b"%d" % user_id
    return text


def _type(event_type: str) -> str:
    """A type's text, the same object for all events while it is remembered: they are few, and open events many."""
    if len(_types) >= _TYPES:
        _types.clear()
    _types[event_type] = event_type
    return event_type


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
