"""The whole dataflow in small scenarios: messages of the partitions, and every row that is written."""

from collections import Counter
from dataclasses import replace

import pytest
from support.logs import (
    EVENTS,
    PURCHASES,
    Job,
    Plan,
    batch_answer,
    event,
    log,
    purchase,
    run,
    session_id,
    stored,
    suspicious,
    visit,
)

from dataflow.clickstream.rules import Rules
from dataflow.tools.reference import Answer


def written(logs: dict, rules: Rules = Rules()) -> Answer:
    """What one worker of the engine writes, without `sessions`; the batch answer has the same."""
    return replace(all_written(logs, rules), sessions=Counter())


def all_written(logs: dict, rules: Rules = Rules()) -> Answer:
    answer = run(logs, rules=rules).answer()
    assert answer == batch_answer(logs, rules)
    return answer


def rows(user: int, *values: bytes) -> Counter:
    return Counter((b"%d" % user, value, ()) for value in values)


def rejected(value: bytes | None, reason: str, source: str, offset: int, key: bytes | None = b"1") -> Counter:
    topic, _, partition = source.partition("/")
    headers = {"reason": reason, "topic": topic, "partition": partition, "offset": str(offset)}
    return Counter({(key, value, tuple((name, text.encode()) for name, text in headers.items())): 1})


def test_a_visitor_browses_buys_and_leaves_with_an_amount():
    view, click, buy = event(0), event(12, "click"), event(30, "purchase", page=7)
    answer = written({EVENTS: log(view, click, buy), PURCHASES: log(purchase(33, "19.90", page=7))})
    session = session_id(1, 0)
    assert answer == Answer(visits=rows(1, *(visit(each, session, "19.90") for each in (view, click, buy))))


def test_outputs_are_these_very_bytes():
    logs = {
        EVENTS: log(b'{"event_type": "page-view", "user_id": 1, "page_id": 2, "timestamp": 1710331200, "tag": [1.50]}'),
        PURCHASES: [],
    }
    row = (
        b'{"event_type": "page-view", "user_id": 1, "page_id": 2, "timestamp": 1710331200, "tag": [1.50],'
        b'"session_id":"5990e35e960eb8e25b3b0916dd0d0c6a","amount":0}'
    )
    assert written(logs) == Answer(visits=Counter({(b"1", row, ()): 1}))


def test_a_session_has_one_row_when_it_closes():
    buys = [event(4.5, "purchase", page=3), event(8, "purchase", page=4)]
    logs = {
        EVENTS: log(event(0, page=2), *buys, event(27.000001, "click", page=5), event(99)),
        PURCHASES: log(purchase(5, "19.90"), purchase(9, "1e2"), purchase(60, "7")),
    }
    row = (
        b'{"session_id":"5990e35e960eb8e25b3b0916dd0d0c6a","user_id":1,'
        b'"started_at":"2024-03-13T12:00:00.000000Z","ended_at":"2024-03-13T12:00:27.000001Z","duration":27.000001,'
        b'"events":4,"page_views":1,"purchases":2,"amount":1e2,"revenue":119.90,'
        b'"first_page":2,"last_page":5,"suspicious":null,"kinds":{"click":1,"page-view":1,"purchase":2}}'
    )
    sessions = all_written(logs).sessions
    assert sessions[b"1", row, ()] == 1
    assert sessions.total() == 2


def test_a_gap_of_exactly_20_s_is_one_session_a_microsecond_more_two():
    first, second, third = event(0), event(20), event(40.000001)
    answer = written({EVENTS: log(first, second, third), PURCHASES: []})
    one, other = session_id(1, 0), session_id(1, 40.000001)
    assert answer == Answer(visits=rows(1, visit(first, one), visit(second, one), visit(third, other)))


def test_a_row_between_two_sessions_merges_them():
    early, late, between = event(0), event(30), event(15, "click")
    logs = {EVENTS: log(early), "user-events/1": log(late), "user-events/2": log(between), PURCHASES: []}
    session = session_id(1, 0)
    assert written(logs) == Answer(visits=rows(1, *(visit(each, session) for each in (early, late, between))))


@pytest.mark.parametrize(
    ("at", "amount", "unmatched"),
    [
        pytest.param(95, "7", False, id="exactly 5 s before"),
        pytest.param(94.999999, "0", True, id="a microsecond more before"),
        pytest.param(105, "7", False, id="exactly 5 s after"),
        pytest.param(105.000001, "0", True, id="a microsecond more after"),
    ],
)
def test_an_amount_belongs_to_a_purchase_event_at_most_5_s_away(at, amount, unmatched):
    buy, paid = event(100, "purchase"), purchase(at, 7)
    answer = written({EVENTS: log(buy), PURCHASES: log(paid)})
    session = session_id(1, 100)
    assert answer == Answer(
        visits=rows(1, visit(buy, session, amount)),
        suspicious_visits=rows(1, suspicious(session, 1, 2)),
        unmatched_purchases=rejected(paid, "no event in its time", PURCHASES, 0) if unmatched else Counter(),
    )


def test_a_session_has_the_amount_of_its_last_matched_purchase_event():
    buys = [event(0, "purchase"), event(10, "purchase"), event(20, "purchase")]
    answer = written(
        {EVENTS: log(event(0), *buys), PURCHASES: log(purchase(0, 900), purchase(12, "3.50"), purchase(11, "2"))}
    )
    session = session_id(1, 0)
    assert answer.visits == rows(1, *(visit(each, session, "2") for each in (event(0), *buys)))


def test_two_purchases_of_one_page_have_an_amount_each():
    buys = [event(0, "purchase"), event(4, "purchase")]
    answer = written({EVENTS: log(*buys), PURCHASES: log(purchase(3, 10), purchase(7, 20))})
    assert answer.visits == rows(1, *(visit(each, session_id(1, 0), "20") for each in buys))
    assert answer.unmatched_purchases == Counter()


def test_a_row_that_no_event_is_left_for_is_unmatched_with_that_reason():
    buy, taken, left, far = event(0, "purchase"), purchase(1, 10), purchase(2, 20), purchase(6, 30)
    answer = written({EVENTS: log(buy), PURCHASES: log(taken, left, far)})
    assert answer.visits == rows(1, visit(buy, session_id(1, 0), "10"))
    assert answer.unmatched_purchases == (
        rejected(left, "another row was taken", PURCHASES, 1) + rejected(far, "no event in its time", PURCHASES, 2)
    )


def test_only_purchase_events_take_amounts():
    paid = purchase(0, 9)
    answer = written({EVENTS: log(event(0), event(1, "Purchase")), PURCHASES: log(paid)})
    assert answer.visits == rows(1, visit(event(0), session_id(1, 0)), visit(event(1, "Purchase"), session_id(1, 0)))
    assert answer.unmatched_purchases == rejected(paid, "no event in its time", PURCHASES, 0)


def test_more_than_5_events_or_no_page_view_is_suspicious():
    many = [event(at, user=1) for at in range(6)]
    few = [event(at, user=2) for at in range(5)]
    blind = [event(at, "click", user=3) for at in range(5)]
    both = [event(at, "click", user=4) for at in range(6)]
    answer = written({EVENTS: log(*many, *few, *blind, *both), PURCHASES: []})
    ids = {user: session_id(user, 0) for user in (1, 3, 4)}
    assert answer.suspicious_visits == (
        rows(1, suspicious(ids[1], 1, 1)) + rows(3, suspicious(ids[3], 3, 2)) + rows(4, suspicious(ids[4], 4, 1))
    )
    assert answer.visits.total() == 22


@pytest.mark.parametrize(
    ("at", "is_late"),
    [
        pytest.param(25, False, id="exactly the lateness below the max timestamp"),
        pytest.param(24.999999, True, id="a microsecond more, although its session is open"),
        pytest.param(-1000, True, id="long ago"),
    ],
)
def test_a_row_more_than_5_s_below_its_partitions_maximum_is_late(at, is_late):
    row = event(at, "click")
    answer = written({EVENTS: log(event(15), event(30), row), PURCHASES: []})
    session = session_id(1, 15)
    assert answer.late_events == (rejected(row, "late", EVENTS, 2) if is_late else Counter())
    assert answer.visits == rows(1, *(visit(each, session) for each in [event(15), event(30)] + [row] * (not is_late)))


def test_a_row_is_not_late_because_of_other_partitions():
    old = event(-3600, user=2)
    answer = written({EVENTS: log(event(0)), "user-events/1": log(old), PURCHASES: log(purchase(50, 1, user=9))})
    assert answer.visits == rows(1, visit(event(0), session_id(1, 0))) + rows(2, visit(old, session_id(2, -3600)))


def test_a_late_purchase_is_unmatched_with_the_reason_late():
    paid = purchase(0, 5)
    answer = written({EVENTS: log(event(0, "purchase")), PURCHASES: log(purchase(10, 1, user=2), paid)})
    assert answer.visits == rows(1, visit(event(0, "purchase"), session_id(1, 0)))
    assert answer.unmatched_purchases == (
        rejected(paid, "late", PURCHASES, 1)
        + rejected(purchase(10, 1, user=2), "no event in its time", PURCHASES, 0, key=b"2")
    )


def test_a_fast_producer_clock_makes_no_row_of_its_partition_late():
    fast, right = event(40, user=1), event(-5, user=2)
    answer = written({EVENTS: log(stored(0, fast), stored(0.5, right)), PURCHASES: []})
    assert answer.visits == rows(1, visit(fast, session_id(1, 40))) + rows(2, visit(right, session_id(2, -5)))


def test_an_unreadable_message_is_a_dead_letter_as_it_came():
    logs = {EVENTS: log(b"\xff", event(0), None), PURCHASES: log(event(0), stored(0, purchase(61, 1)))}
    answer = written(logs)
    assert answer.visits == rows(1, visit(event(0), session_id(1, 0)))
    assert answer.dead_letters == (
        rejected(b"\xff", "*", EVENTS, 0, key=None)
        + rejected(None, "*", EVENTS, 2, key=None)
        + rejected(event(0), "*", PURCHASES, 0, key=None)
        + rejected(purchase(61, 1), "timestamp is more than 60 s ahead of the clock", PURCHASES, 1, key=None)
    )


def test_a_dead_letter_has_its_reason_and_origin_in_headers():
    job = Job({EVENTS: log(event(0, user="1")), PURCHASES: []})
    for batch in Plan().polls(job.partitions):
        job.feed(batch)
    ((_, output),) = job.written.elements("dead_letters")
    assert dict(output.headers) == {
        "reason": b"Expected `int`, got `str` - at `$.user_id`",
        "topic": b"user-events",
        "partition": b"0",
        "offset": b"0",
    }


def test_a_row_is_partitioned_by_its_key_or_else_by_its_origin():
    junk = log(b"junk")[0]
    job = Job(
        {
            EVENTS: [junk, junk._replace(key=b"k", offset=1)],
            "user-events/5": log(b"junk", event(0, user=7)),
            PURCHASES: [],
        }
    )
    for batch in Plan().polls(job.partitions):
        job.feed(batch)
    assert [route for route, _ in job.written.elements("dead_letters")] == ["user-events/0", "k", "user-events/5"]
    assert [route for route, _ in job.written.elements("visits")] == ["7"]


def test_visits_of_a_session_are_written_together_in_event_time_order():
    events = [event(at) for at in (9, 3, 5, 5.5, 4)]
    rules = Rules(lateness=10_000_000)
    assert run({EVENTS: log(*events), PURCHASES: []}, rules=rules).rows("visits") == [
        visit(event(at), session_id(1, 3)) for at in (3, 4, 5, 5.5, 9)
    ]


def test_empty_inputs_give_empty_outputs():
    assert written({EVENTS: [], PURCHASES: []}) == Answer()


def test_two_workers_write_the_same_rows():
    logs = {
        EVENTS: log(*(event(at, user=at % 7) for at in range(50))),
        PURCHASES: log(*(purchase(at, at, user=at % 7) for at in range(50))),
    }
    assert run(logs, workers=2).answer() == batch_answer(logs)


# --- with the wall clock: who may close what, and when ---

VIEW = event(0)
SESSION = visit(VIEW, session_id(1, 0))


def is_out(job: Job) -> bool:
    return job.written.rows("visits") == [SESSION]


def test_an_idle_source_lets_the_watermark_advance():
    job = Job()
    job.read(EVENTS, VIEW, now=0)
    job.is_at_its_end(PURCHASES, asof=0)
    job.read(EVENTS, event(100, user=2), now=100)
    assert not is_out(job)  # purchases have been at their end 100 s ago
    job.is_at_its_end(PURCHASES, asof=100)
    assert is_out(job)


def test_a_silent_source_that_is_not_idle_blocks_the_watermark():
    job = Job()
    job.is_at_its_end(PURCHASES, asof=0)
    job.read(EVENTS, VIEW, now=0)
    for now in range(0, 10_000, 100):
        job.read(EVENTS, event(now, user=2), now=now, caught_up_at=now)
    assert job.written.rows("visits") == []
    job.is_at_its_end(PURCHASES, asof=10_000)
    assert SESSION in job.written.rows("visits")


@pytest.mark.parametrize(("asof", "out"), [(25, False), (25.000001, True)])
def test_without_traffic_a_session_closes_25_s_after_its_last_event(asof, out):
    job = Job()
    job.read(EVENTS, VIEW, now=0)
    for source in (EVENTS, PURCHASES):
        job.is_at_its_end(source, asof)
    assert is_out(job) == out


def test_an_amount_is_decided_before_its_session_closes():
    job = Job()
    job.read(EVENTS, event(0, "purchase"), now=0)
    job.read(PURCHASES, purchase(5, 9), now=5)  # exactly the window later
    for source in (EVENTS, PURCHASES):
        job.is_at_its_end(source, asof=25.000001)
    assert job.written.rows("visits") == [visit(event(0, "purchase"), session_id(1, 0), "9")]


def test_a_session_waits_for_its_stretch_if_the_window_is_wider_than_half_the_gap():
    """Purchases 8 s apart, each with a row between it and the next: a stretch through sessions of one event each."""
    job = Job(rules=Rules(gap=4_000_000))
    buys = [event(at, "purchase") for at in (0, 8, 16)]
    job.read(EVENTS, *buys, now=16)
    job.read(PURCHASES, purchase(4, 10), purchase(12, 20), now=16)
    for source in (EVENTS, PURCHASES):
        job.is_at_its_end(source, asof=26)  # the watermark is at 21: the end of the stretch and the window
    assert job.written.rows("visits") == []
    for source in (EVENTS, PURCHASES):
        job.is_at_its_end(source, asof=26.000001)
    assert job.written.rows("visits") == [visit(buys[0], session_id(1, 0), "0"), visit(buys[1], session_id(1, 8), "10")]
    job.end()
    assert job.written.answer() == batch_answer(job.partitions.logs, Rules(gap=4_000_000))


def test_sessions_of_old_events_close_without_a_wait():
    job = Job()
    job.read(EVENTS, VIEW, now=5000)
    for source in (EVENTS, PURCHASES):
        job.is_at_its_end(source, asof=5025)
    assert not is_out(job)
    for source in (EVENTS, PURCHASES):
        job.is_at_its_end(source, asof=5025.000001)
    assert is_out(job)


def test_an_outage_stops_the_watermark():
    job = Job()
    job.read(EVENTS, VIEW, now=0)
    for source in (EVENTS, PURCHASES):
        job.is_at_its_end(source, asof=10)
    job.read(EVENTS, event(15, "click"), now=3600)  # written before the outage, read after it
    job.read(PURCHASES, now=3600)
    job.end()
    assert job.written.answer().late_events == Counter()
    assert job.written.answer().visits.total() == 2


def test_a_row_below_its_shards_watermark_is_late():
    job = Job({EVENTS: [], "user-events/1": [], PURCHASES: []})
    job.read(EVENTS, event(100), now=100)
    job.read("user-events/1", event(50, user=2), now=100)
    for source in (EVENTS, "user-events/1", PURCHASES):
        job.is_at_its_end(source, asof=100)
    on_time, late = event(95, user=2), event(94.999999, user=2)
    job.read("user-events/1", on_time, late, now=101)
    job.end()
    assert job.written.answer().late_events == rejected(late, "late", "user-events/1", 2, key=b"2")
    assert job.written.answer().visits.total() == 3


def test_a_purchase_below_its_shards_watermark_is_late():
    job = Job()
    job.read(EVENTS, event(100), now=100)
    for source in (EVENTS, PURCHASES):
        job.is_at_its_end(source, asof=100)
    late = purchase(94, 5)
    job.read(PURCHASES, late, now=101)
    job.end()
    assert job.written.answer().unmatched_purchases == rejected(late, "late", PURCHASES, 0)


def test_after_a_resume_every_source_must_be_idle_again():
    job = Job()
    job.read(EVENTS, VIEW, now=0)
    for source in (EVENTS, PURCHASES):
        job.is_at_its_end(source, asof=10)
    job.resume(job.snapshot())
    job.read(EVENTS, event(1000, user=2), now=1000)
    assert job.written.rows("visits") == []
    job.is_at_its_end(PURCHASES, asof=1000)
    assert is_out(job)


def test_a_fast_producer_clock_makes_no_row_of_other_partitions_late():
    """One that gives its messages the time of Kafka as well: of the topic's default, CreateTime."""
    job = Job({EVENTS: [], "user-events/1": [], PURCHASES: []})
    job.read("user-events/1", event(0, user=2), now=0)
    for now in range(60):
        job.read(EVENTS, stored(now + 50, event(now + 50)), now=now)
        for source in (EVENTS, "user-events/1", PURCHASES):
            job.is_at_its_end(source, asof=now)
        job.read("user-events/1", event(now, user=2), now=now + 1)  # a second under way
    job.end()
    assert job.written.answer().late_events == Counter()
    assert job.written.answer().visits.total() == 121


def test_a_session_in_the_future_closes_when_its_time_has_come():
    job = Job()
    job.read(EVENTS, stored(0, event(40)), now=0)
    for asof, out in ((25.000001, False), (65, False), (65.000001, True)):
        for source in (EVENTS, PURCHASES):
            job.is_at_its_end(source, asof)
        assert bool(job.written.rows("visits")) == out
