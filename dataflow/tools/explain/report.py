"""What became of one user's rows, and why.

The job's own rules decide, over all rows of the user at once. That is possible because the result does not depend on
the order in which rows are read.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dataflow.clickstream.attribution import amounts, match, own_match, pair_purchases
from dataflow.clickstream.kinds import Kinds
from dataflow.clickstream.outputs import LATE, NO_EVENT, OTHER_ROW, OUTPUTS, Feed, Keyed, rejecter
from dataflow.clickstream.records import Event, Match
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.sessions import ClosedSession, SessionAccumulator, accumulate, finalize, merge
from dataflow.runtime.settings import Settings
from dataflow.streaming.interval_join import Decided, IntervalJoin
from dataflow.streaming.session_windows import Session, SessionWindows
from dataflow.streaming.time import MAX_TIME, MIN_TIME, Time
from dataflow.streaming.watermark import SourceProgress, WatermarkTracker
from dataflow.tools.explain.collect import MaxTimestampAt, ObservedDeadLetter, ObservedPartition, ObservedRow

# why an event takes one row and not another that is free, by the first field in which the matches differ
_BEATEN_BY = {
    "same_page": "same page",
    "nearness": "nearer",
    "paid_at": "later",
    "size": "larger",
    "amount": "by its text",
}
EQUAL = "no less"  # they differ in no field
OTHER_EVENT = "another event"  # takes the row

OutputRow = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]  # key, value, headers
OutputRows = dict[str, Counter[OutputRow]]  # by topic


@dataclass(frozen=True)
class Candidate:
    """A purchase row within the match window of a purchase event."""

    observed: ObservedRow
    match: Match
    beaten_by: str | None  # why the event does not take it; None: it does
    taken_by: ObservedRow | None  # the event that takes the row; None: no event does


@dataclass(frozen=True)
class Step:
    """An event of a session."""

    observed: ObservedRow
    gap: int | None  # microseconds since the user's event before; None: it is the first
    candidates: list[Candidate]  # of a purchase event: the row that it takes, if any, then the others, best first
    is_purchase: bool

    @property
    def event(self) -> Event:
        return self.observed.event

    @property
    def taken(self) -> Candidate | None:
        """The row that the event takes."""
        return self.candidates[0] if self.candidates and self.candidates[0].beaten_by is None else None

    @property
    def amount(self) -> Match | None:
        """Where the event has its amount from: the row that it takes, or itself; None: it has none."""
        if self.event.amount:
            return own_match(self.event)
        return self.taken.match if self.taken is not None else None


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
class UnmatchedRow:
    """A purchase row that no event takes."""

    observed: ObservedRow
    reason: str  # NO_EVENT or OTHER_ROW


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
    unmatched: list[UnmatchedRow]
    undecided: list[UnmatchedRow]  # no event takes them so far; one that is still to come may
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
    unmatched: list[UnmatchedRow]
    undecided: list[UnmatchedRow]
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
        unmatched=[unmatched for unmatched in report.unmatched if row(unmatched.observed)],
        undecided=[undecided for undecided in report.undecided if row(undecided.observed)],
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
        partitions: all partitions of the input topics, read to their ends at `as_of`.
        rules: the numbers in the rules.
        settings: give the names of the topics, and whether the job stops at the end.
        as_of: wall time, microseconds.
        overtaken: addresses of rows that the job rejected as late although their partition does not
            make them late.
    """
    rows = [observed for partition in partitions for observed in partition.rows]
    on_time = [observed for observed in rows if not observed.late and observed.where not in overtaken]
    events = {observed.row.position: observed for observed in on_time if type(observed.row) is Event}
    purchases = {observed.row.position: observed for observed in on_time if type(observed.row) is not Event}
    watermarks = _watermarks(partitions, rules, as_of, settings.stop_at_end)

    clicks = [observed.event for observed in events.values()]
    spec = amounts(rules.kinds)
    join = IntervalJoin(rules.window, spec, rules.retention)
    join.add(clicks)
    join.add([observed.purchase for observed in purchases.values()])
    by_log, held_by_log = join.decide(watermarks.by_log), join.held
    by_clock, held_by_clock = join.decide(watermarks.by_clock), join.held
    later = IntervalJoin(rules.window, spec)
    later.restore(join.state())
    to_come = later.decide(MAX_TIME)

    windows: SessionWindows[SessionAccumulator] = SessionWindows(
        rules.gap, rules.retention, SessionAccumulator, accumulate, merge
    )
    windows.add(clicks)
    windows.add([own_match(click) for click in clicks if click.amount])
    windows.add(by_log.matches + by_clock.matches + to_come.matches)
    closed = [(session, CLOSED_BY_LOG) for session in windows.close(watermarks.by_log, held_by_log)]
    closed += [(session, CLOSED_BY_CLOCK) for session in windows.close(watermarks.by_clock, held_by_clock)]
    closed += [(session, OPEN) for session in windows.close(MAX_TIME)]
    candidates = _candidates(events.values(), purchases.values(), rules.window, rules.kinds)
    sessions = list(_session_reports(closed, events, candidates, join, rules, watermarks))

    by_time = sorted(rows, key=lambda observed: (observed.row.time, observed.row.position))
    report = Report(
        user,
        sessions,
        late=[observed for observed in by_time if observed.late],
        overtaken=[observed for observed in by_time if not observed.late and observed.where in overtaken],
        unmatched=_unmatched_rows(purchases, by_log, by_clock),
        undecided=_unmatched_rows(purchases, to_come),
        purchases=sorted(purchases.values(), key=lambda observed: observed.row.time),
        dead=[dead for partition in partitions for dead in partition.dead],
        watermarks=watermarks,
    )
    open_sessions = [session for session in sessions if session.state == OPEN]
    closed_sessions = [session for session in sessions if session.state != OPEN]
    late = [*report.late, *report.overtaken]
    report.to_come = outputs_of(open_sessions, settings) | _rejected(settings, unmatched=report.undecided)
    report.written = outputs_of(closed_sessions, settings) | _rejected(settings, late, report.dead, report.unmatched)
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
    closed: Iterable[tuple[Session[SessionAccumulator], str]],
    events: Mapping[int, ObservedRow],
    candidates: Mapping[int, list[Candidate]],
    join: IntervalJoin,
    rules: Rules,
    watermarks: Watermarks,
) -> Iterator[SessionReport]:
    """Reports sessions in order of time.

    Args:
        closed: the sessions, and the state of each.
        events: the user's events, by position.
        candidates: of the purchase events, by position.
        join: holds what is not decided yet.
        rules: the numbers in the rules.
        watermarks: those that have closed the sessions.
    """
    before: int | None = None
    for session, state in sorted(closed, key=lambda pair: pair[0].start):
        result = finalize(session, rules)
        steps = []
        for event in result.events:
            gap = event.time - before if before is not None else None
            is_purchase = event.event_type in rules.kinds.purchases
            steps.append(Step(events[event.position], gap, candidates.get(event.position, []), is_purchase))
            before = event.time
        closes = max(session.end + rules.retention, join.decided_after(session.user, session.end))
        due = closes + rules.lateness - watermarks.ahead
        yield SessionReport(result, session.start, session.end, steps, _paid_by(session, steps), state, due)


def _candidates(
    events: Iterable[ObservedRow], purchases: Iterable[ObservedRow], window: int, kinds: Kinds
) -> dict[int, list[Candidate]]:
    """The candidates of each purchase event, by its position."""
    buying = sorted(
        (each for each in events if each.event.event_type in kinds.purchases and not each.event.amount),
        key=lambda observed: (observed.row.time, observed.row.position),
    )
    rows = sorted(purchases, key=lambda observed: observed.row.time)
    times = [observed.row.time for observed in rows]
    pairs = pair_purchases([each.event for each in buying], [each.purchase for each in rows], window)
    rows_of, events_of = dict(pairs), {row: event for event, row in pairs}
    found: dict[int, list[Candidate]] = {}
    for number, observed in enumerate(buying):
        event = observed.event
        taken = match(event, rows[rows_of[number]].purchase) if number in rows_of else None
        candidates = []
        for row in range(bisect_left(times, event.time - window), bisect_right(times, event.time + window)):
            taken_by = buying[events_of[row]] if row in events_of else None
            possible = match(event, rows[row].purchase)
            if taken_by is observed:
                beaten_by = None
            elif taken_by is not None:
                beaten_by = OTHER_EVENT
            else:  # the row is free, so the event takes another
                assert taken is not None
                beaten_by = _why_better(taken, possible)
            candidates.append(Candidate(rows[row], possible, beaten_by, taken_by))
        candidates.sort(key=lambda each: (each.beaten_by is None, each.match), reverse=True)
        found[event.position] = candidates
    return found


def _why_better(better: Match, worse: Match) -> str:
    for name in Match.__struct_fields__:
        if getattr(better, name) != getattr(worse, name):
            return _BEATEN_BY[name]
    return EQUAL


def _paid_by(session: Session[SessionAccumulator], steps: list[Step]) -> Step | None:
    best = session.fold.best
    return next((step for step in steps if best is not None and step.amount == best), None)


def _unmatched_rows(purchases: Mapping[int, ObservedRow], *decisions: Decided) -> list[UnmatchedRow]:
    found = [UnmatchedRow(purchases[row.position], NO_EVENT) for each in decisions for row in each.unmatched]
    found += [UnmatchedRow(purchases[row.position], OTHER_ROW) for each in decisions for row in each.left_over]
    return sorted(found, key=lambda unmatched: (unmatched.observed.row.time, unmatched.observed.row.position))


def outputs_of(sessions: Iterable[SessionReport], settings: Settings) -> OutputRows:
    """The output rows of sessions, by topic."""
    results = [session.result for session in sessions]
    return _encoded({Feed.CLOSED_SESSIONS: [("", results)]}, settings)


def _rejected(
    settings: Settings,
    late: Iterable[ObservedRow] = (),
    dead: Iterable[ObservedDeadLetter] = (),
    unmatched: Iterable[UnmatchedRow] = (),
) -> OutputRows:
    reject = rejecter(settings.input_topics)
    late = list(late)
    late_purchases = [reject(observed.row, LATE) for observed in late if type(observed.row) is not Event]
    return _encoded(
        {
            Feed.LATE_EVENTS: [reject(observed.row, LATE) for observed in late if type(observed.row) is Event],
            Feed.UNREADABLE: [dead_letter.rejected for dead_letter in dead],
            Feed.UNMATCHED_PURCHASES: late_purchases + [reject(each.observed.row, each.reason) for each in unmatched],
        },
        settings,
    )


def _encoded(elements: Mapping[Feed, Iterable[Any]], settings: Settings) -> OutputRows:
    return {
        settings.topic(spec): rows_of(
            keyed for element in elements[spec.feed] for keyed in spec.encode(element, settings.rules)
        )
        for spec in OUTPUTS
        if spec.feed in elements
    }


def rows_of(elements: Iterable[Keyed]) -> Counter[OutputRow]:
    """The rows that a sink writes for its elements."""
    return Counter(
        (output.key, value, tuple(output.headers or ())) for _, output in elements for value in output.values
    )
