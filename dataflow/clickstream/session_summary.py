"""The row of `sessions`: what an analyst asks of a session, without reading its visits.

A row is at most some 100 kB large, whatever the events are: Kafka refuses larger messages, and one user must not stop
the job.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

import msgspec

from dataflow.clickstream.kinds import Kinds
from dataflow.clickstream.records import NUMBER_PAGE, Event
from dataflow.clickstream.revenue import revenue_json
from dataflow.clickstream.sessions import ClosedSession
from dataflow.streaming.time import SECOND, Time

MAX_KINDS = 100
MAX_KIND_NAME = 100  # characters
MAX_PAGE = 2_000  # characters

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_encode = msgspec.json.encode


def encode_session(session: ClosedSession, kinds: Kinds) -> bytes:
    """The row of a session that has closed; `kinds` says which events are page views and purchases."""
    events = session.events
    start, end = events[0].time, events[-1].time
    counts = Counter(event.event_type for event in events)
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
        sum(counts[kind] for kind in kinds.page_views),
        sum(counts[kind] for kind in kinds.purchases),
        session.amount,
        revenue_json(session.revenue),
        _first_page(events),
        _first_page(reversed(events)),
        _encode(session.suspicion),
        _encode(_listed(counts)),
    )


def _utc(time: Time) -> bytes:
    """ISO 8601, to the microsecond."""
    return (_UNIX_EPOCH + timedelta(microseconds=time)).isoformat(timespec="microseconds")[:-6].encode() + b"Z"


def _first_page(events: Iterable[Event]) -> bytes:
    """The page of the first event that has one, as JSON."""
    event = next((event for event in events if event.page != ""), None)
    if event is None:
        return b"null"
    page = event.page
    if isinstance(page, int):
        return b"%d" % page
    return page.encode() if event.form & NUMBER_PAGE and len(page) <= MAX_PAGE else _encode(page[:MAX_PAGE])


def _listed(counts: Counter[str]) -> dict[str, int]:
    """The most frequent kinds, in order of their names."""
    named = [(-count, kind) for kind, count in counts.items() if len(kind) <= MAX_KIND_NAME]
    return {kind: counts[kind] for kind in sorted(kind for _, kind in sorted(named)[:MAX_KINDS])}
