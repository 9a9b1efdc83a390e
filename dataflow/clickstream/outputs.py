"""The topics that are written, each an `OutputSpec` in `OUTPUTS`.

To add an output, write what encodes its records and append a spec. The topology gets its steps and its sink, the
settings its topic's name, `explain` and `verify` its records from there. The independent reference
(`dataflow.tools.reference`) has to compute the output too, or `verify` cannot compare it and says so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from dataflow.clickstream.inputs import InputTopics
from dataflow.clickstream.records import InputRecord
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.serde import encode_suspicious, encode_visits
from dataflow.clickstream.session_summary import encode_session
from dataflow.clickstream.sessions import ClosedSession
from dataflow.streaming.batches import OutgoingRecords, RejectedRecord

# reasons in the headers of rejected records; those of dead letters say what cannot be read
LATE = "late"
NO_EVENT = "no event in its time"
OTHER_ROW = "another row was taken"  # by each event in its time

Keyed = tuple[str, OutgoingRecords]  # an element of a sink; the text chooses the output partition


class Feed(Enum):
    """The streams of the topology that an output can be made of, and their elements."""

    CLOSED_SESSIONS = auto()  # (shard key, list of ClosedSession)
    LATE_EVENTS = auto()  # RejectedRecord
    UNREADABLE = auto()  # RejectedRecord
    UNMATCHED_PURCHASES = auto()  # RejectedRecord, late purchase rows included


@dataclass(frozen=True)
class OutputSpec:
    """One output topic.

    Args:
        name: of the output, and of its topic unless a setting says otherwise.
        description: what the table of settings says.
        feed: the stream that it is made of.
        encode: makes of one element of that stream, by the rules, the keyed records to write: key, values and headers.
        step: what its steps are called, if not after the name. Ids of steps are keys in the recovery store.
        optional: whether the job also runs without the topic, and then without these steps.
    """

    name: str
    description: str
    feed: Feed
    encode: Callable[[Any, Rules], Iterator[Keyed]]
    step: str = ""
    optional: bool = False

    @property
    def setting(self) -> str:
        """Its name as part of settings and steps: `late_events` of `late-events`."""
        return self.name.replace("-", "_")

    @property
    def step_name(self) -> str:
        return self.step or self.setting


def visits(keyed: tuple[str, list[ClosedSession]], rules: Rules) -> Iterator[Keyed]:
    """The rows of `visits`: every event of a session, in order of time."""
    for session in keyed[1]:
        rows: list[bytes | None] = []
        rows += encode_visits(session.events, session.identity, session.amount, rules.added)
        yield session.user.decode(), OutgoingRecords(session.user, rows)


def suspicious_visits(keyed: tuple[str, list[ClosedSession]], rules: Rules) -> Iterator[Keyed]:
    """The rows of `suspicious-visits`: one a session that is suspicious."""
    for session in keyed[1]:
        if session.suspicion is not None:
            row = encode_suspicious(session.identity, session.user_json, session.suspicion)
            yield session.user.decode(), OutgoingRecords(session.user, [row])


def sessions(keyed: tuple[str, list[ClosedSession]], rules: Rules) -> Iterator[Keyed]:
    """The rows of `sessions`: one a session."""
    for session in keyed[1]:
        yield session.user.decode(), OutgoingRecords(session.user, [encode_session(session, rules.kinds)])


def rejected(record: RejectedRecord, rules: Rules) -> Iterator[Keyed]:
    """A record as it came, with headers that say why it was rejected and where it was."""
    topic, _, partition = record.source.rpartition("/")
    headers = [
        ("reason", record.reason.encode()),
        ("topic", topic.encode()),
        ("partition", partition.encode()),
        ("offset", b"%d" % record.offset),
    ]
    if record.part is not None:
        headers.append(("part", b"%d" % record.part))
    # a record without a key is routed by its origin, so that a replay puts it into the same partition
    route = record.key.decode(errors="replace") if record.key is not None else record.source
    yield route, OutgoingRecords(record.key, [record.value], headers)


def rejecter(inputs: InputTopics) -> Callable[[InputRecord, str], RejectedRecord]:
    """Makes what rejects readable rows of the input topics, given a row and the reason."""

    def reject(row: InputRecord, reason: str) -> RejectedRecord:
        at = inputs.address(row)
        return RejectedRecord(row.user, row.value, reason, f"{at.topic}/{at.partition}", at.offset, part=at.part)

    return reject


VISITS = OutputSpec("visits", "output: every event with its session and amount", Feed.CLOSED_SESSIONS, visits)
SUSPICIOUS_VISITS = OutputSpec(
    "suspicious-visits", "output: suspicious sessions", Feed.CLOSED_SESSIONS, suspicious_visits, step="suspicious"
)
LATE_EVENTS = OutputSpec("late-events", "output: events that arrived too late, unchanged", Feed.LATE_EVENTS, rejected)
DEAD_LETTERS = OutputSpec("dead-letters", "output: messages that cannot be read, and why", Feed.UNREADABLE, rejected)
UNMATCHED_PURCHASES = OutputSpec(
    "unmatched-purchases", "output: purchase rows that no event took", Feed.UNMATCHED_PURCHASES, rejected
)
SESSIONS = OutputSpec(
    "sessions",
    "output: one row per session, with counts, times and revenue; not written while its topic is missing",
    Feed.CLOSED_SESSIONS,
    sessions,
    optional=True,
)

OUTPUTS: tuple[OutputSpec, ...] = (VISITS, SUSPICIOUS_VISITS, LATE_EVENTS, DEAD_LETTERS, UNMATCHED_PURCHASES, SESSIONS)
