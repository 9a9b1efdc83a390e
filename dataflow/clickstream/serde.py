"""Between Kafka's bytes and the records of the rules: JSON in, JSON out."""

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec

from dataflow.clickstream.dead_letters import (
    DECODE_ERRORS,
    no_value,
    not_a_number,
    out_of_range,
    too_large_a_number,
    unreadable,
)
from dataflow.clickstream.interning import Interned
from dataflow.clickstream.records import PLAIN, Event, Purchase
from dataflow.clickstream.users import user_of
from dataflow.streaming.time import SECOND

# years 1 to 9999 in seconds: a timestamp in milliseconds lies outside
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_800

_SECOND = float(SECOND)  # at today's size products are exact to six decimals

_Page = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


_CLOSING_BRACE = ord("}")
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


_users: Interned[int, bytes] = Interned(user_of, 100_000)
_types: Interned[str, str] = Interned(str, 1_000)  # few, and open events are many

_event = msgspec.json.Decoder(_EventText).decode
_purchase = msgspec.json.Decoder(_PurchaseText).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


def decode_event(value: bytes | None, position: int, message: object = None) -> Event:
    """Decodes the value of a message of `user-events` at a position of its topic. Raises Unreadable."""
    if value is None:
        raise no_value()
    try:
        if not value.isascii():
            value.decode()  # the JSON decoder does not check fields that it skips
        text = _event(value)
    except DECODE_ERRORS as error:
        raise unreadable(value, error) from None
    timestamp = text.timestamp
    if not _FIRST_SECOND <= timestamp < _LAST_SECOND:
        raise out_of_range()
    return Event(
        round(timestamp * _SECOND),
        _users[text.user_id],
        value,
        position,
        text.page_id,
        _types[text.event_type],
        PLAIN if value[-1] == _CLOSING_BRACE and text.session_id is _UNSET and text.amount is _UNSET else 0,
    )


def decode_purchase(value: bytes | None, position: int, message: object = None) -> Purchase:
    """Decodes the value of a message of `purchases` at a position of its topic. Raises Unreadable."""
    if value is None:
        raise no_value()
    try:
        if not value.isascii():
            value.decode()
        text = _purchase(value)
    except DECODE_ERRORS as error:
        raise unreadable(value, error) from None
    if not _FIRST_SECOND <= text.timestamp < _LAST_SECOND:
        raise out_of_range()
    amount = bytes(text.amount)
    if amount[0] not in b"-0123456789":
        raise not_a_number()
    if abs(float(amount)) == float("inf"):
        raise too_large_a_number()
    return Purchase(round(text.timestamp * _SECOND), _users[text.user_id], value, position, text.page_id, amount)


class AddedFields(NamedTuple):
    """Names of the fields that visits get."""

    session_id: str = "session_id"
    amount: str = "amount"


ADDED = AddedFields()


def encode_visits(events: Iterable[Event], session_id: bytes, amount: bytes, added: AddedFields = ADDED) -> list[bytes]:
    """Each event's own text, with two fields appended: the session's id and amount."""
    more = b',%b:"%b",%b:%b}' % (_encode(added.session_id), session_id, _encode(added.amount), amount)
    return [
        (event.value if event.form & PLAIN else _with_own_fields_renamed(event.value, added))[:-1] + more
        for event in events
    ]


def encode_suspicious(session_id: bytes, user: bytes, suspicion: int) -> bytes:
    """A row of ``suspicious-visits``; `user` is the id as JSON."""
    return b'{"session_id":"%b","user_id":%b,"type":%d}' % (session_id, user, suspicion)


def _with_own_fields_renamed(value: bytes, added: AddedFields) -> bytes:
    """The event's text without trailing whitespace, and with fields of its own that visits would have twice renamed.

    `session_id` becomes `original_session_id`; if there is such a field too, `original_original_session_id`.
    """
    value = value.rstrip()
    fields = _fields(value)
    if not any(name in fields for name in added):
        return value
    parts = []
    names = set(fields)
    for name, text in fields.items():
        if name in added:
            while name in added or name in names:
                name = f"original_{name}"
            names.add(name)
        parts.append(_encode(name) + b":" + bytes(text))
    return b"{" + b",".join(parts) + b"}"
