"""The row of `sessions`: what an analyst asks of a session, without reading its visits.

A row is at most some 100 kB large, whatever the events are: Kafka refuses larger messages, and one user must not stop
the job.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache

import msgspec

from dataflow.clickstream.kinds import Kinds
from dataflow.clickstream.records import NUMBER_PAGE, Event
from dataflow.clickstream.revenue import revenue_json
from dataflow.clickstream.sessions import ClosedSession
from dataflow.streaming.time import SECOND, Time

MAX_KINDS = 100
MAX_KIND_NAME = 100  # characters
MAX_PAGE = 2_000  # characters

_MINUTE, _HOUR, _DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
_UNIX_EPOCH = date(1970, 1, 1).toordinal()
_encode = msgspec.json.encode


def encode_session(session: ClosedSession, kinds: Kinds) -> bytes:
    """The row of a session that has closed; `kinds` says which events are page views and purchases."""
    events = session.events
    start, end = events[0].time, events[-1].time
    counts: dict[str, int] = {}
    for event in events:  # half the time that a Counter takes
        kind = event.event_type
        counts[kind] = counts.get(kind, 0) + 1
    return (
        b'{"session_id":"%b","user_id":%b,"started_at":"%b","ended_at":"%b","duration":%b,'
        b'"events":%d,"page_views":%d,"purchases":%d,"amount":%b,"revenue":%b,'
        b'"first_page":%b,"last_page":%b,"suspicious":%b,"kinds":%b}'
    ) % (
        session.identity,
        session.user_json,
        _utc(start),
        _utc(end),
        b"%d.%06d" % divmod(end - start, SECOND),
        len(events),
        sum([counts.get(kind, 0) for kind in kinds.page_views]),
        sum([counts.get(kind, 0) for kind in kinds.purchases]),
        session.amount,
        revenue_json(session.revenue),
        _first_page(events),
        _first_page(reversed(events)),
        _encode(session.suspicion),
        _encode(_listed(counts)),
    )


def _utc(time: Time) -> bytes:
    """ISO 8601, to the microsecond."""
    days, time = divmod(time, _DAY)
    hour, minute, second = time // _HOUR, time // _MINUTE % 60, time // SECOND % 60
    return b"%bT%02d:%02d:%02d.%06dZ" % (_date(days), hour, minute, second, time % SECOND)


@lru_cache
def _date(days: int) -> bytes:
    return date.fromordinal(_UNIX_EPOCH + days).isoformat().encode()


def _first_page(events: Iterable[Event]) -> bytes:
    """The page of the first event that has one, as JSON."""
    event = next((event for event in events if event.page != ""), None)
    if event is None:
        return b"null"
    page = event.page
    if isinstance(page, int):
        return b"%d" % page
    return page.encode() if event.form & NUMBER_PAGE and len(page) <= MAX_PAGE else _encode(page[:MAX_PAGE])


def _listed(counts: Mapping[str, int]) -> dict[str, int]:
    """The most frequent kinds, in order of their names."""
    listed = [kind for kind in counts if len(kind) <= MAX_KIND_NAME]
    if len(listed) > MAX_KINDS:
        listed = sorted(listed, key=lambda kind: (-counts[kind], kind))[:MAX_KINDS]
    return {kind: counts[kind] for kind in sorted(listed)}
