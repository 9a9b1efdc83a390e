"""What became of one user's rows, and why: told by the rules themselves, over all of the user's rows at once.

That is allowed because the answer does not depend on the order in which rows are read.
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

# why one match is greater than another: the first of its fields in which they differ
_BECAUSE = {
    "same_page": "same page",
    "nearness": "nearer",
    "paid_at": "later",
    "size": "larger",
    "amount": "by its text",
}

OutputRow = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]  # key, value, headers
OutputRows = dict[str, Counter[OutputRow]]  # by topic


@dataclass(frozen=True)
class Candidate:
    """A purchase row in the time of a purchase event; `beaten_by` says why another was better, if one was."""

    seen: ObservedRow
    match: Match
    beaten_by: str | None


@dataclass(frozen=True)
class Step:
    """An event of a session, the time since the event of that user before it, and whom a purchase could have met."""

    seen: ObservedRow
    gap: int | None  # microseconds; None: the first
    candidates: list[Candidate]  # best first

    @property
    def event(self) -> Event:
        return self.seen.event


CLOSED_BY_LOG = "closed by the log"  # the lowest mark has passed it
CLOSED_BY_CLOCK = "closed by the clock"  # partitions have run dry, and it passed while they had
OPEN = "open"


@dataclass(frozen=True)
class SessionReport:
    """A session."""

    finished: ClosedSession
    start: int
    end: int
    steps: list[Step]
    paid_by: Step | None  # the purchase event whose amount all have
    state: str
    due: Time  # wall time at which it closes if nothing more comes into any partition

    @property
    def identity(self) -> str:
        return self.finished.identity.decode()


@dataclass(frozen=True)
class WatermarkReport:
    """Where event time stands: what holds back the sessions that are open."""

    asked: int  # wall time as of which the log is told, microseconds
    watermark: Time  # by the marks alone
    by_clock: Time  # of a job that has read everything, and goes on by the clock where there is nothing more
    lowest: str  # the source that holds the watermark
    lowest_mark: MaxTimestampAt
    ahead: Time  # how far event time is ahead of (less than nothing: behind) the wall clock


@dataclass
class Report:
    """Everything of one user."""

    user: bytes
    sessions: list[SessionReport]
    late: list[ObservedRow]
    overtaken: list[ObservedRow]  # late only because the job had gone on without their partition
    unmatched: list[ObservedRow]
    undecided: list[ObservedRow]  # purchase rows that have met nobody, but still may
    purchases: list[ObservedRow]  # all that are on time
    dead: list[ObservedDeadLetter]
    waiting: WatermarkReport
    written: OutputRows = field(default_factory=dict)  # what there is to write by now
    to_come: OutputRows = field(default_factory=dict)  # and what comes when sessions close


@dataclass(frozen=True)
class ReportPart:
    """What is shown of a story."""

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
    """Picks the sessions, other rows and dead letters of which that is true."""
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
    asked: int,
    overtaken: Collection[str] = frozenset(),
) -> Report:
    """Tells what became of the rows that the partitions have kept.

    Args:
        user: whose they are.
        partitions: all of both topics, read to the end that they had at `asked`, in microseconds.
        rules: the numbers in the rules.
        settings: name the topics, and say whether the job stops at the end.
        overtaken: rows ("topic/partition/offset") that the job has called late, though by the log they are not.
    """
    rows = [seen for partition in partitions for seen in partition.rows]
    on_time = [seen for seen in rows if not seen.late and seen.where not in overtaken]
    events = {seen.row.position: seen for seen in on_time if type(seen.row) is Event}
    purchases = {seen.row.position: seen for seen in on_time if type(seen.row) is not Event}
    waiting = _watermark_report(partitions, rules, asked, settings.stop_at_end)

    join = IntervalJoin(rules.window, AMOUNTS)  # it changes rows, so it gets copies
    clicks = [seen.event for seen in events.values()]
    matches = join.add(clicks) + join.add([copy(seen.row) for seen in purchases.values()])
    candidates = {event.position: _ranked(event, join, purchases) for event in clicks if event.event_type == PURCHASE}
    unmatched = [purchases[row.position] for row in join.expire(waiting.by_clock)]
    undecided = [purchases[row.position] for row in join.expire(MAX_TIME)]

    sessions: SessionWindows[SessionAccumulator] = SessionWindows(
        rules.gap, rules.window, SessionAccumulator, accumulate, merge
    )
    sessions.add(clicks)
    sessions.add(matches)
    told = list(_closed(sessions, events, candidates, rules, waiting))

    by_time = sorted(rows, key=lambda seen: (seen.row.time, seen.row.position))
    report = Report(
        user,
        told,
        late=[seen for seen in by_time if seen.late],
        overtaken=[seen for seen in by_time if not seen.late and seen.where in overtaken],
        unmatched=unmatched,
        undecided=undecided,
        purchases=sorted(purchases.values(), key=lambda seen: seen.row.time),
        dead=[dead for partition in partitions for dead in partition.dead],
        waiting=waiting,
    )
    still_open = [each for each in told if each.state == OPEN]
    closed = [each for each in told if each.state != OPEN]
    late = [*report.late, *report.overtaken]
    report.to_come = outputs_of(still_open, settings) | _rejected(settings, unmatched=undecided)
    report.written = outputs_of(closed, settings) | _rejected(settings, late, report.dead, unmatched)
    return report


def _watermark_report(
    partitions: Collection[ObservedPartition], rules: Rules, asked: int, at_end: bool
) -> WatermarkReport:
    """Lets a clock hear all marks, and then that nothing more has come up to `asked`."""
    clock = WatermarkTracker(rules.lateness)
    sources = tuple(partition.source for partition in partitions)
    for partition in partitions:
        mark = MAX_TIME if at_end else partition.max_timestamp.time
        read_at = min(partition.max_timestamp.stored, asked)  # a job that keeps up has read it when it came
        clock.advance(SourceProgress(partition.source, mark, int(read_at), None, sources))
    by_log = clock.watermark
    for partition in partitions:
        clock.advance(SourceProgress(partition.source, clock.max_timestamps[partition.source], asked, asked, sources))
    lowest = min(partitions, key=lambda partition: partition.max_timestamp.time)
    ahead = clock.high - clock.high_read_at if clock.high > MIN_TIME else MIN_TIME
    return WatermarkReport(asked, by_log, clock.watermark, lowest.source, lowest.max_timestamp, ahead)


def _watermarks(waiting: WatermarkReport) -> list[tuple[str, Time]]:
    """What closes sessions, one after the other; the end closes those that are open."""
    return [(CLOSED_BY_LOG, waiting.watermark), (CLOSED_BY_CLOCK, waiting.by_clock), (OPEN, MAX_TIME)]


def _closed(
    sessions: SessionWindows[SessionAccumulator],
    events: Mapping[int, ObservedRow],
    candidates: Mapping[int, list[Candidate]],
    rules: Rules,
    waiting: WatermarkReport,
) -> Iterator[SessionReport]:
    """Closes all sessions, and tells each, in order of time."""
    closed = [(session, state) for state, watermark in _watermarks(waiting) for session in sessions.close(watermark)]
    closed.sort(key=lambda pair: pair[0].start)
    before: int | None = None
    for session, state in closed:
        finished = finalize(session, rules.thresholds)
        steps = []
        for event in finished.events:
            gap = event.time - before if before is not None else None
            steps.append(Step(events[event.position], gap, candidates.get(event.position, [])))
            before = event.time
        due = session.end + sessions.retention + rules.lateness - waiting.ahead
        yield SessionReport(finished, session.start, session.end, steps, _paid_by(session, steps), state, due)


def _ranked(event: Event, join: IntervalJoin, purchases: Mapping[int, ObservedRow]) -> list[Candidate]:
    pairs = [(match(event, row), purchases[row.position]) for row in join.candidates(event)]
    pairs.sort(key=lambda pair: pair[0], reverse=True)
    return [Candidate(seen, each, None if each is pairs[0][0] else _why(pairs[0][0], each)) for each, seen in pairs]


def _why(better: Match, worse: Match) -> str:
    for name in Match.__struct_fields__:
        if getattr(better, name) != getattr(worse, name):
            return _BECAUSE[name]
    return "no less"


def _paid_by(session: Session[SessionAccumulator], steps: list[Step]) -> Step | None:
    best = session.fold.best
    return next((step for step in steps if step.candidates and step.candidates[0].match == best), None)


def outputs_of(sessions: Iterable[SessionReport], settings: Settings) -> OutputRows:
    """The output rows that sessions give, by topic."""
    closed = [each.finished for each in sessions]
    return _encoded({Feed.CLOSED_SESSIONS: [("", closed)]}, settings)


def _rejected(
    settings: Settings,
    late: Iterable[ObservedRow] = (),
    dead: Iterable[ObservedDeadLetter] = (),
    unmatched: Iterable[ObservedRow] = (),
) -> OutputRows:
    reject_late, reject_unmatched = (rejecter(*settings.inputs, reason) for reason in (LATE, NO_EVENT))
    late = list(late)
    late_purchases = [reject_late(seen.row) for seen in late if type(seen.row) is not Event]
    return _encoded(
        {
            Feed.LATE_EVENTS: [reject_late(seen.row) for seen in late if type(seen.row) is Event],
            Feed.UNREADABLE: [each.rejected for each in dead],
            Feed.UNMATCHED_PURCHASES: late_purchases + [reject_unmatched(seen.row) for seen in unmatched],
        },
        settings,
    )


def _encoded(elements: Mapping[Feed, Iterable[Any]], settings: Settings) -> OutputRows:
    return {
        settings.topic(spec): rows_of(keyed for element in elements[spec.feed] for keyed in spec.encode(element))
        for spec in OUTPUTS
        if spec.feed in elements
    }


def rows_of(written: Iterable[Keyed]) -> Counter[OutputRow]:
    """The rows that a sink makes of what it is given."""
    return Counter((output.key, value, tuple(output.headers or ())) for _, output in written for value in output.values)
