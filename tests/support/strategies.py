"""Random logs, and random orders in which the job reads them, for property tests."""

from hypothesis import settings
from hypothesis import strategies as st

from dataflow.clickstream.suspicion import SUSPICION_RULES

from .logs import Job, Logs, Plan, event, log, purchase, stored

# for tests in the engine itself, which take some fifty times longer a case
FEWER = settings(max_examples=max(settings.default.max_examples // 10, 10))

# Everything that matters happens at multiples of 5 s: window and lateness are 5, the gap is 20. So times are such
# multiples, exactly, or a microsecond beside them, or anywhere.
TICK = 0.000001
TIMES = st.builds(
    lambda fives, off: fives * 5 + off,
    st.integers(0, 4) | st.integers(0, 8) | st.integers(0, 24),
    st.sampled_from([0, 0, 0, TICK, -TICK, 0.5, 1, -1, 2.5]),
)
USERS = st.sampled_from([1, 1, 1, 2, -7, 10**30])
PAGES = st.sampled_from([1, 1, 2])
TYPES = st.sampled_from(["page-view", "click", "purchase", "purchase", "purchase", "sürprise"])
AMOUNTS = st.sampled_from(["5", "5.0", "5e0", "4.99", "0", "-0.0", "7", "-3", "12345678901234567890"])
# seconds from a row's own time to when Kafka stored it: a phone that is fast, right or slow; None: not told
DELAYS = st.sampled_from([None, None, None, 0, 0.25, 3, -2, -10, -40, -60, -60.5, 30])
JUNK = st.sampled_from(
    [
        None,
        b"",
        b"null",
        b"{}",
        b"[]",
        b"\xff",
        b'{"user_id":1',
        b'{"user_id":true,"page_id":1,"timestamp":1,"event_type":""}',
    ]
)
EXTRA = st.sampled_from([{}, {}, {}, {"referrer": "é"}, {"amount": 1}, {"session_id": None, "z": [1.50]}])


def _spelled(time: float) -> float:
    return int(time) if time == int(time) else round(time, 6)


def _at(time: float, delay: float | None, value: bytes):
    return value if delay is None else stored(time + delay, value)


def _event(at, event_type, user, page, delay, extra):
    return _at(at, delay, event(_spelled(at), event_type, user, page, **extra))


def _purchase(at, amount, user, page, delay):
    return _at(at, delay, purchase(_spelled(at), amount, user, page))


EVENT_ROWS = st.builds(_event, TIMES, TYPES, USERS, PAGES, DELAYS, EXTRA)
PURCHASE_ROWS = st.builds(_purchase, TIMES, AMOUNTS, USERS, PAGES, DELAYS)


def _partitions(topic: str, rows: st.SearchStrategy, most: int) -> st.SearchStrategy[Logs]:
    """Up to four partitions: full, sparse and empty ones, in order, nearly so, or not at all."""
    messages = st.one_of(rows, rows, rows, rows, rows, rows, rows, JUNK)
    few, many = {"max_size": most}, {"min_size": most // 2, "max_size": 2 * most}
    unsorted = st.lists(messages, **few)
    in_order = st.lists(rows, **few).map(lambda made: sorted(made, key=timestamp))
    nearly = (st.lists(rows, **few) | st.lists(rows, **many)).map(
        lambda made: sorted(made, key=lambda row: timestamp(row) // 10)
    )
    partition = st.one_of(unsorted, in_order, nearly, nearly)
    partitions = st.lists(partition, min_size=1, max_size=1) | st.lists(partition, min_size=1, max_size=4)
    return partitions.map(lambda many: {f"{topic}/{number}": log(*rows) for number, rows in enumerate(many)})


def timestamp(message) -> float:
    value = message[1] if isinstance(message, tuple) else message
    return float(value.partition(b'"timestamp":')[2].partition(b"}")[0].partition(b",")[0])


LOGS = st.builds(
    lambda events, purchases: {**events, **purchases},
    _partitions("user-events", EVENT_ROWS, 12),
    _partitions("purchases", PURCHASE_ROWS, 6),
)

# A rush: few users buy at nearly the same time, so that purchase events compete for rows, and rows for events.
_RUSH_TIMES = st.builds(
    lambda time, off: time + off,
    st.integers(0, 8) | st.integers(0, 16) | st.integers(0, 60),
    st.sampled_from([0, 0, 0, 0, 0.5, TICK, -TICK]),
)
_RUSH_USERS, _RUSH_PAGES = st.sampled_from([1, 1, 1, 1, 2]), st.sampled_from([1, 1, 2, 3])
_RUSH_AMOUNTS = st.sampled_from(["1", "1", "1.0", "2", "3", "9007199254740993", "9007199254740992"])
_RUSH_TYPES = st.sampled_from(["purchase"] * 5 + ["page-view"])
RUSHES = st.builds(
    lambda events, purchases: {**events, **purchases},
    _partitions(
        "user-events",
        st.builds(_event, _RUSH_TIMES, _RUSH_TYPES, _RUSH_USERS, _RUSH_PAGES, st.none(), st.just({})),
        10,
    ),
    _partitions("purchases", st.builds(_purchase, _RUSH_TIMES, _RUSH_AMOUNTS, _RUSH_USERS, _RUSH_PAGES, st.none()), 10),
)


@st.composite
def chains(draw: st.DrawFn) -> tuple[Logs, Plan]:
    """Purchases of one user with short pauses, read in order of time: stretches that go on while sessions come and go."""
    pauses = st.sampled_from([0, 0.5, 1, 2, 4, 5, 5 + TICK, 6, 9])
    rows: dict[str, list[bytes]] = {"user-events/0": [], "purchases/0": []}
    steps = []
    time = 0.0
    for pause, is_event, page, amount in draw(
        st.lists(st.tuples(pauses, st.booleans(), _RUSH_PAGES, _RUSH_AMOUNTS), min_size=4, max_size=30)
    ):
        time += pause
        source = "user-events/0" if is_event else "purchases/0"
        rows[source].append(
            event(_spelled(time), "purchase", 1, page) if is_event else purchase(_spelled(time), amount, 1, page)
        )
        steps.append((source, 1))
    return {source: log(*values) for source, values in rows.items()}, Plan(tuple(steps))


SHARDS = st.integers(1, 8)
THRESHOLDS = st.fixed_dictionaries(
    {rule.threshold.name: st.integers(rule.threshold.minimum, rule.threshold.minimum + 7) for rule in SUSPICION_RULES}
)


@st.composite
def plans(draw: st.DrawFn, logs: Logs, most: int = 30) -> Plan:
    steps = st.lists(st.tuples(st.sampled_from(sorted(logs)), st.integers(0, 4)), max_size=most)
    return Plan(tuple(draw(steps)), draw(st.integers(1, 4)), draw(st.booleans()))


@st.composite
def logs_and_plans(draw: st.DrawFn, some: st.SearchStrategy[Logs] = LOGS | RUSHES) -> tuple[Logs, Plan]:
    logs = draw(some)
    return logs, draw(plans(logs))


def read(job: Job, plan: Plan) -> None:
    for poll in plan.polls(job.partitions):
        job.feed(poll)
