"""What became of one user's rows, and why.

The job's own rules decide, over all rows of the user at once. That is possible because the result does not depend on
the order in which rows are read.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from dataflow.clickstream.attribution import AMOUNTS, PURCHASE, match
from dataflow.clickstream.outputs import LATE, NO_EVENT, OUTPUTS, Feed, Keyed, rejecter
from dataflow.clickstream.records import Event, Match
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.sessions import ClosedSession, SessionAccumulator, accumulate, finalize, merge
from dataflow.runtime.settings import Settings
from dataflow.streaming.interval_join import IntervalJoin
from dataflow.streaming.session_windows import Session, SessionWindows
from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time
from dataflow.streaming.watermark import SourceProgress, WatermarkTracker
from dataflow.tools.explain.collect import MaxTimestampAt, ObservedDeadLetter, ObservedPartition, ObservedRow

# why one match is greater than another, by the first field in which they differ
_BEATEN_BY = {
    "same_page": "same page",
    "nearness": "nearer",
    "paid_at": "later",
    "size": "larger",
    "amount": "by its text",
}
EQUAL = "no less"  # they differ in no field

OutputRow = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]  # key, value, headers
OutputRows = dict[str, Counter[OutputRow]]  # by topic


@dataclass(frozen=True)
class Candidate:
    """A purchase row within the match window of a purchase event."""

    observed: ObservedRow
    match: Match
    beaten_by: str | None  # why the best candidate is better; None: this is the best


@dataclass(frozen=True)
class Step:
    """An event of a session."""

    observed: ObservedRow
    gap: int | None  # microseconds since the user's event before; None: it is the first
    candidates: list[Candidate]  # of a purchase event, best first

    @property
    def event(self) -> Event:
        return self.observed.event


CLOSED_BY_LOG = "closed by the log"  # the lowest max timestamp of all partitions has passed the session
CLOSED_BY_CLOCK = "closed by the clock"  # the watermark of idle partitions, which follows the clock, has passed it
OPEN = "open"


@dataclass(frozen=True)
class SessionReport:
    """A session of the user; for an open one, what it would be if it closed now. Times are in microseconds."""

    result: ClosedSession
    start: int
    end: int
    steps: list[Step]
    paid_by: Step | None  # the purchase event that gives the session its amount
    state: str  # CLOSED_BY_LOG, CLOSED_BY_CLOCK or OPEN
    due: Time  # wall time at which it closes if no further row comes into any partition

    @property
    def identity(self) -> str:
        """The session id."""
        return self.result.identity.decode()


@dataclass(frozen=True)
class Watermarks:
    """Event time, and what holds it back. Times are in microseconds."""

    as_of: int  # wall time of this report
    by_log: Time  # the watermark by the max timestamps alone
    by_clock: Time  # the watermark of a job that has read everything: that of idle partitions follows the clock
    lowest_source: str  # the source that holds the watermark back
    lowest: MaxTimestampAt  # its max timestamp
    ahead: Time  # how far event time is ahead of the wall clock; negative: behind


@dataclass
class Report:
    """Everything about one user."""

    user: bytes  # empty: the report is about a message without a user
    sessions: list[SessionReport]
    late: list[ObservedRow]  # late in their own partition
    overtaken: list[ObservedRow]  # late because their partition was idle and the watermark passed them
    unmatched: list[ObservedRow]
    undecided: list[ObservedRow]  # purchase rows without a match that may still get one
    purchases: list[ObservedRow]  # all purchase rows that are on time
    dead: list[ObservedDeadLetter]
    watermarks: Watermarks
    written: OutputRows = field(default_factory=dict)  # rows that the job should have written by now
    to_come: OutputRows = field(default_factory=dict)  # rows that it writes when the open sessions close


@dataclass(frozen=True)
class ReportPart:
    """The part of a report that is shown."""

    sessions: list[SessionReport]
    late: list[ObservedRow]
    overtaken: list[ObservedRow]
    unmatched: list[ObservedRow]
    undecided: list[ObservedRow]
    dead: list[ObservedDeadLetter]


def part_of(
    report: Report,
    session: Callable[[SessionReport], bool],
    row: Callable[[ObservedRow], bool],
    dead: Callable[[ObservedDeadLetter], bool],
) -> ReportPart:
    """Selects the sessions, rows and dead letters for which the three predicates are true."""
    return ReportPart(
        sessions=list(filter(session, report.sessions)),
        late=list(filter(row, report.late)),
        overtaken=list(filter(row, report.overtaken)),
        unmatched=list(filter(row, report.unmatched)),
        undecided=list(filter(row, report.undecided)),
        dead=list(filter(dead, report.dead)),
    )


def build_report(
    user: bytes,
    partitions: Collection[ObservedPartition],
    rules: Rules,
    settings: Settings,
    as_of: int,
    overtaken: Collection[str] = frozenset(),
) -> Report:
    """Reports what became of the rows that the partitions have collected.

    Args:
        user: the user of these rows.
        partitions: all partitions of both input topics, read to their ends at `as_of`.
        rules: the numbers in the rules.
        settings: give the names of the topics, and whether the job stops at the end.
        as_of: wall time, microseconds.
        overtaken: rows, "topic/partition/offset", that the job rejected as late although their partition does not
            make them late.
    """
    rows = [observed for partition in partitions for observed in partition.rows]
    on_time = [observed for observed in rows if not observed.late and observed.where not in overtaken]
    events = {observed.row.position: observed for observed in on_time if type(observed.row) is Event}
    purchases = {observed.row.position: observed for observed in on_time if type(observed.row) is not Event}
    watermarks = _watermarks(partitions, rules, as_of, settings.stop_at_end)

    join = IntervalJoin(rules.window, AMOUNTS)  # it changes purchase rows, so it gets copies
    clicks = [observed.event for observed in events.values()]
    matches = join.add(clicks) + join.add([copy(observed.row) for observed in purchases.values()])
    candidates = {event.position: _ranked(event, join, purchases) for event in clicks if event.event_type == PURCHASE}
    unmatched = [purchases[row.position] for row in join.expire(watermarks.by_clock)]
    undecided = [purchases[row.position] for row in join.expire(MAX_TIME)]

    windows: SessionWindows[SessionAccumulator] = SessionWindows(
        rules.gap, rules.window, SessionAccumulator, accumulate, merge
    )
    windows.add(clicks)
    windows.add(matches)
    sessions = list(_session_reports(windows, events, candidates, rules, watermarks))

    by_time = sorted(rows, key=lambda observed: (observed.row.time, observed.row.position))
    report = Report(
        user,
        sessions,
        late=[observed for observed in by_time if observed.late],
        overtaken=[observed for observed in by_time if not observed.late and observed.where in overtaken],
        unmatched=unmatched,
        undecided=undecided,
        purchases=sorted(purchases.values(), key=lambda observed: observed.row.time),
        dead=[dead for partition in partitions for dead in partition.dead],
        watermarks=watermarks,
    )
    open_sessions = [session for session in sessions if session.state == OPEN]
    closed_sessions = [session for session in sessions if session.state != OPEN]
    late = [*report.late, *report.overtaken]
    report.to_come = outputs_of(open_sessions, settings) | _rejected(settings, unmatched=undecided)
    report.written = outputs_of(closed_sessions, settings) | _rejected(settings, late, report.dead, unmatched)
    return report


def _watermarks(partitions: Collection[ObservedPartition], rules: Rules, as_of: int, stop_at_end: bool) -> Watermarks:
    """Advances a tracker by all max timestamps, then by the fact that nothing more came until `as_of`."""
    tracker = WatermarkTracker(rules.lateness)
    sources = tuple(partition.source for partition in partitions)
    for partition in partitions:
        max_timestamp = MAX_TIME if stop_at_end else partition.max_timestamp.time
        read_at = min(partition.max_timestamp.stored, as_of)  # a job that keeps up reads a row when it is stored
        tracker.advance(SourceProgress(partition.source, max_timestamp, int(read_at), None, sources))
    by_log = tracker.watermark
    for partition in partitions:
        max_timestamp = tracker.max_timestamps[partition.source]
        tracker.advance(SourceProgress(partition.source, max_timestamp, as_of, as_of, sources))
    lowest = min(partitions, key=lambda partition: partition.max_timestamp.time)
    ahead = tracker.high - (tracker.high_read_at or 0) if tracker.high > MIN_TIME else MIN_TIME
    return Watermarks(as_of, by_log, tracker.watermark, lowest.source, lowest.max_timestamp, ahead)


def _session_reports(
    windows: SessionWindows[SessionAccumulator],
    events: Mapping[int, ObservedRow],
    candidates: Mapping[int, list[Candidate]],
    rules: Rules,
    watermarks: Watermarks,
) -> Iterator[SessionReport]:
    """Closes all sessions by one watermark after the other, and reports them in order of time.

    Args:
        windows: the sessions.
        events: the user's events, by position.
        candidates: of the purchase events, by position.
        rules: the numbers in the rules.
        watermarks: by the log, then by the clock. MAX_TIME closes the sessions that are still open.
    """
    closing = (CLOSED_BY_LOG, watermarks.by_log), (CLOSED_BY_CLOCK, watermarks.by_clock), (OPEN, MAX_TIME)
    closed = [(session, state) for state, watermark in closing for session in windows.close(watermark)]
    closed.sort(key=lambda pair: pair[0].start)
    before: int | None = None
    for session, state in closed:
        result = finalize(session, rules.thresholds)
        steps = []
        for event in result.events:
            gap = event.time - before if before is not None else None
            steps.append(Step(events[event.position], gap, candidates.get(event.position, [])))
            before = event.time
        due = session.end + windows.retention + rules.lateness - watermarks.ahead
        yield SessionReport(result, session.start, session.end, steps, _paid_by(session, steps), state, due)


def _ranked(event: Event, join: IntervalJoin, purchases: Mapping[int, ObservedRow]) -> list[Candidate]:
    pairs = [(match(event, row), purchases[row.position]) for row in join.candidates(event)]
    pairs.sort(key=lambda pair: pair[0], reverse=True)
    return [
        Candidate(observed, found, None if found is pairs[0][0] else _why_better(pairs[0][0], found))
        for found, observed in pairs
    ]


def _why_better(better: Match, worse: Match) -> str:
    for name in Match.__struct_fields__:
        if getattr(better, name) != getattr(worse, name):
            return _BEATEN_BY[name]
    return EQUAL


def _paid_by(session: Session[SessionAccumulator], steps: list[Step]) -> Step | None:
    best = session.fold.best
    return next((step for step in steps if step.candidates and step.candidates[0].match == best), None)


def outputs_of(sessions: Iterable[SessionReport], settings: Settings) -> OutputRows:
    """The output rows of sessions, by topic."""
    results = [session.result for session in sessions]
    return _encoded({Feed.CLOSED_SESSIONS: [("", results)]}, settings)


def _rejected(
    settings: Settings,
    late: Iterable[ObservedRow] = (),
    dead: Iterable[ObservedDeadLetter] = (),
    unmatched: Iterable[ObservedRow] = (),
) -> OutputRows:
    reject_late, reject_unmatched = (rejecter(*settings.inputs, reason) for reason in (LATE, NO_EVENT))
    late = list(late)
    late_purchases = [reject_late(observed.row) for observed in late if type(observed.row) is not Event]
    return _encoded(
        {
            Feed.LATE_EVENTS: [reject_late(observed.row) for observed in late if type(observed.row) is Event],
            Feed.UNREADABLE: [dead_letter.rejected for dead_letter in dead],
            Feed.UNMATCHED_PURCHASES: late_purchases + [reject_unmatched(observed.row) for observed in unmatched],
        },
        settings,
    )


def _encoded(elements: Mapping[Feed, Iterable[Any]], settings: Settings) -> OutputRows:
    return {
        settings.topic(spec): rows_of(keyed for element in elements[spec.feed] for keyed in spec.encode(element))
        for spec in OUTPUTS
        if spec.feed in elements
    }


def rows_of(elements: Iterable[Keyed]) -> Counter[OutputRow]:
    """The rows that a sink writes for its elements."""
    return Counter(
        (output.key, value, tuple(output.headers or ())) for _, output in elements for value in output.values
    )
