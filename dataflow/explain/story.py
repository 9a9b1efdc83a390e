"""What became of one user's rows, and why: told by the rules themselves, over all of the user's rows at once.

That is allowed because the answer does not depend on the order in which rows are read.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field

from dataflow.batches import Poll
from dataflow.explain.gather import Dead, MarkAt, Partition, Seen
from dataflow.pipeline import LATE, NO_EVENT, Keyed, Rules, dead_letters, rejecter, suspicious, visits
from dataflow.rules.amounts import AMOUNTS, PURCHASE, match
from dataflow.rules.join import IntervalJoin
from dataflow.rules.rows import END, NEVER, Event, Match, Time
from dataflow.rules.session import Session, Sessions
from dataflow.rules.time import Clock, SourceTime
from dataflow.rules.visits import Finished, Visit, add_row, finish, unite
from dataflow.settings import Settings

# why one match is greater than another: the first of its fields in which they differ
_BECAUSE = {
    "same_page": "same page",
    "nearness": "nearer",
    "paid_at": "later",
    "size": "larger",
    "amount": "by its text",
}

Row = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]  # key, value, headers
Outputs = dict[str, Counter[Row]]  # by topic


@dataclass(frozen=True)
class Candidate:
    """A purchase row in the time of a purchase event; `beaten_by` says why another was better, if one was."""

    seen: Seen
    match: Match
    beaten_by: str | None


@dataclass(frozen=True)
class Step:
    """An event of a session, the time since the event of that user before it, and whom a purchase could have met."""

    seen: Seen
    gap: int | None  # microseconds; None: the first
    candidates: list[Candidate]  # best first

    @property
    def event(self) -> Event:
        return self.seen.row


CLOSED_BY_LOG = "closed by the log"  # the lowest mark has passed it
CLOSED_BY_CLOCK = "closed by the clock"  # partitions have run dry, and it passed while they had
OPEN = "open"


@dataclass(frozen=True)
class Told:
    """A session."""

    finished: Finished
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
class Waiting:
    """Where event time stands: what holds back the sessions that are open."""

    asked: int  # wall time as of which the log is told, microseconds
    watermark: Time  # by the marks alone
    by_clock: Time  # of a job that has read everything, and goes on by the clock where there is nothing more
    lowest: str  # the source that holds the watermark
    lowest_mark: MarkAt
    ahead: Time  # how far event time is ahead of (less than nothing: behind) the wall clock


@dataclass
class Story:
    """Everything of one user."""

    user: bytes
    sessions: list[Told]
    late: list[Seen]
    overtaken: list[Seen]  # late only because the job had gone on without their partition
    unmatched: list[Seen]
    undecided: list[Seen]  # purchase rows that have met nobody, but still may
    purchases: list[Seen]  # all that are on time
    dead: list[Dead]
    waiting: Waiting
    written: Outputs = field(default_factory=dict)  # what there is to write by now
    to_come: Outputs = field(default_factory=dict)  # and what comes when sessions close


@dataclass(frozen=True)
class Part:
    """What is shown of a story."""

    sessions: list[Told]
    late: list[Seen]
    overtaken: list[Seen]
    unmatched: list[Seen]
    undecided: list[Seen]
    dead: list[Dead]


def part_of(
    story: Story, session: Callable[[Told], bool], row: Callable[[Seen], bool], dead: Callable[[Dead], bool]
) -> Part:
    """Picks the sessions, other rows and dead letters of which that is true."""
    lists = story.late, story.overtaken, story.unmatched, story.undecided
    return Part(
        list(filter(session, story.sessions)),
        *(list(filter(row, each)) for each in lists),
        list(filter(dead, story.dead)),
    )


def tell(
    user: bytes,
    partitions: Collection[Partition],
    rules: Rules,
    settings: Settings,
    asked: int,
    overtaken: Collection[str] = frozenset(),
) -> Story:
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
    waiting = _wait(partitions, rules, asked, settings.stop_at_end)

    join = IntervalJoin(rules.window, AMOUNTS)  # it changes rows, so it gets copies
    clicks = [seen.row for seen in events.values()]
    matches = join.add(clicks) + join.add([copy(seen.row) for seen in purchases.values()])
    candidates = {event.position: _ranked(event, join, purchases) for event in clicks if event.event_type == PURCHASE}
    unmatched = [purchases[row.position] for row in join.expire(waiting.by_clock)]
    undecided = [purchases[row.position] for row in join.expire(END)]

    sessions: Sessions[Visit] = Sessions(rules.gap, rules.window, Visit, add_row, unite)
    sessions.add(clicks)
    sessions.add(matches)
    told = list(_closed(sessions, events, candidates, rules, waiting))

    by_time = sorted(rows, key=lambda seen: (seen.row.time, seen.row.position))
    story = Story(
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
    story.to_come = _of_sessions([each for each in told if each.state == OPEN], undecided, settings)
    story.written = _of_sessions([each for each in told if each.state != OPEN], unmatched, settings)
    for topic, rows_of_topic in _rejected([*story.late, *story.overtaken], story.dead, settings).items():
        story.written[topic] = story.written.get(topic, Counter()) + rows_of_topic
    return story


def _wait(partitions: Collection[Partition], rules: Rules, asked: int, at_end: bool) -> Waiting:
    """Lets a clock hear all marks, and then that nothing more has come up to `asked`."""
    clock = Clock(rules.lateness)
    sources = tuple(partition.source for partition in partitions)
    for partition in partitions:
        mark = END if at_end else partition.mark.time
        read_at = min(partition.mark.stored, asked)  # a job that keeps up has read it when it came
        clock.advance(SourceTime(partition.source, mark, int(read_at), None, sources))
    by_log = clock.watermark
    for partition in partitions:
        clock.advance(SourceTime(partition.source, clock.marks[partition.source], asked, asked, sources))
    lowest = min(partitions, key=lambda partition: partition.mark.time)
    ahead = clock.high - clock.high_read_at if clock.high > NEVER else NEVER
    return Waiting(asked, by_log, clock.watermark, lowest.source, lowest.mark, ahead)


def _watermarks(waiting: Waiting) -> list[tuple[str, Time]]:
    """What closes sessions, one after the other; the end closes those that are open."""
    return [(CLOSED_BY_LOG, waiting.watermark), (CLOSED_BY_CLOCK, waiting.by_clock), (OPEN, END)]


def _closed(
    sessions: Sessions[Visit],
    events: Mapping[int, Seen],
    candidates: Mapping[int, list[Candidate]],
    rules: Rules,
    waiting: Waiting,
) -> Iterator[Told]:
    """Closes all sessions, and tells each, in order of time."""
    closed = [(session, state) for state, watermark in _watermarks(waiting) for session in sessions.close(watermark)]
    closed.sort(key=lambda pair: pair[0].start)
    before = None
    for session, state in closed:
        finished = finish(session, rules.max_events, rules.min_page_views)
        steps = []
        for event in finished.events:
            gap = event.time - before if before is not None else None
            steps.append(Step(events[event.position], gap, candidates.get(event.position, [])))
            before = event.time
        due = session.end + sessions.hold + rules.lateness - waiting.ahead
        yield Told(finished, session.start, session.end, steps, _paid_by(session, steps), state, due)


def _ranked(event: Event, join: IntervalJoin, purchases: Mapping[int, Seen]) -> list[Candidate]:
    pairs = [(match(event, row), purchases[row.position]) for row in join.candidates(event)]
    pairs.sort(key=lambda pair: pair[0], reverse=True)
    return [Candidate(seen, each, None if each is pairs[0][0] else _why(pairs[0][0], each)) for each, seen in pairs]


def _why(better: Match, worse: Match) -> str:
    for name in Match.__struct_fields__:
        if getattr(better, name) != getattr(worse, name):
            return _BECAUSE[name]
    return "no less"


def _paid_by(session: Session[Visit], steps: list[Step]) -> Step | None:
    best = session.fold.best
    return next((step for step in steps if step.candidates and step.candidates[0].match == best), None)


def _of_sessions(sessions: Iterable[Told], unmatched: Iterable[Seen], settings: Settings) -> Outputs:
    finished = [each.finished for each in sessions]
    no_event = rejecter(settings.topic_purchases, NO_EVENT)
    return {
        settings.topic_visits: rows_of(visits(("", finished))),
        settings.topic_suspicious_visits: rows_of(suspicious(("", finished))),
        settings.topic_unmatched_purchases: rows_of(no_event(seen.row) for seen in unmatched),
    }


def _rejected(late: Iterable[Seen], dead: Iterable[Dead], settings: Settings) -> Outputs:
    late_event, late_purchase = (rejecter(topic, LATE) for topic in settings.inputs)
    nobody = SourceTime("", NEVER, 0, None, ())
    return {
        settings.topic_late_events: rows_of(late_event(seen.row) for seen in late if type(seen.row) is Event),
        settings.topic_unmatched_purchases: rows_of(
            late_purchase(seen.row) for seen in late if type(seen.row) is not Event
        ),
        settings.topic_dead_letters: rows_of(dead_letters(Poll([], nobody, [], [each.rejected for each in dead]))),
    }


def rows_of(written: Iterable[Keyed]) -> Counter[Row]:
    """The rows that a sink makes of what it is given."""
    return Counter((output.key, value, tuple(output.headers or ())) for _, output in written for value in output.values)
