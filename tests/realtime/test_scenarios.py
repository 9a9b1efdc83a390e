"""What real time does to a stream, one thing at a time, against the embedded broker and a real Kafka.

In every scenario all output topics are held, row by row, against the batch answer for what is in the input. The answer
alone would not do: that the numbers of late, dead and unmatched rows in it are those that the scenario put in is
asserted beside it. Three scenarios are run at the same time on the textbook program, which must fail in them.
"""

import os
import time
from itertools import islice
from zlib import crc32

import pytest

from realtime.running import Outcome
from realtime.traffic import DEAD, LATE, STRAY, Row, Shop, clicks, event
from realtime.world import Kafka, World

pytestmark = pytest.mark.realtime

OUTAGE = float(os.environ.get("OUTAGE_SECONDS", "120"))  # all brokers down
PART_OUTAGE = OUTAGE / 3  # one broker down
PAUSE = OUTAGE / 2  # the job stopped

HOUR, YEAR = 3_600, 365 * 86_400

USERS = range(1, 41)
WARM = 150  # visits after which a job is in full swing


def live(world: World, **options) -> None:
    """Opens the shop, now."""
    world.shop.open(clicks(1, options.pop("users", USERS), time.time(), world.settings.session_gap, **options))


def assert_only_strays(outcome: Outcome, shop: Shop) -> None:
    assert outcome.late == outcome.late_purchases == outcome.dead == 0
    assert outcome.unmatched == shop.kinds[STRAY] > 0


def test_no_row_is_late_after_all_brokers_were_down(world, tell):
    world.with_control()
    world.start()
    live(world)
    world.wait_for_visits(WARM)
    world.kafka.stop_brokers()
    time.sleep(OUTAGE)
    waiting = world.shop.unsent
    assert waiting > OUTAGE  # rows; the shop has been open all the time
    world.kafka.start_brokers()
    world.wait_for_visits(waiting)
    outcome = world.settle()
    assert_only_strays(outcome, world.shop)
    lost = world.lost_by_control(outcome)
    assert lost.lost > waiting / 4, f"the control passes, so this test is too weak: {lost}"
    tell(
        f"{outcome}; {waiting} rows waited {OUTAGE:g} s for brokers, in order, so none is late; only strays match nothing; {lost}"
    )


def test_no_row_is_late_while_one_broker_is_down(world, tell):
    spread_leaders(world.kafka, world.settings.inputs)
    world.start()
    live(world)
    world.wait_for_visits(WARM)
    world.kafka.stop_brokers(1)
    before = len(world.shop.sent)
    time.sleep(PART_OUTAGE)
    waiting, sent = world.shop.unsent, len(world.shop.sent) - before
    assert waiting < sent
    world.kafka.start_brokers(1)
    world.wait_for_visits(WARM)
    outcome = world.settle()
    assert_only_strays(outcome, world.shop)
    tell(
        f"{outcome}; {waiting} of {sent} rows waited up to {PART_OUTAGE:g} s for their broker: none is late in its own partition"
    )


def test_a_stopped_job_resumes_where_it_was(world, tell):
    world.with_control()
    world.start()
    live(world)
    world.wait_for_visits(WARM)
    world.job.stop()
    world.control.terminate()
    before = len(world.shop.sent)
    time.sleep(PAUSE)
    meanwhile = len(world.shop.sent) - before
    world.start()
    world.wait_for_visits(meanwhile)
    outcome = world.settle()
    assert_only_strays(outcome, world.shop)
    lost = world.lost_by_control(outcome)
    assert lost.lost > meanwhile / 4, f"the control passes, so this test is too weak: {lost}"
    tell(f"{outcome}; {meanwhile} rows came while it was stopped for {PAUSE:g} s, and time stood still for it; {lost}")


def test_a_silent_partition_blocks_no_other(world, tell):
    world.start()
    users = [user for user in range(1, 60) if crc32(b"%d" % user) % 8 != 5]
    live(world, users=users)
    world.wait_for_visits(WARM)
    outcome = world.settle()
    assert_only_strays(outcome, world.shop)
    tell(
        f"{outcome}; partition 5 of both topics never had a row, nobody else's are late for that, and all sessions closed"
    )


def test_a_row_an_hour_ahead_is_dead_and_a_row_a_year_behind_is_late(world, tell):
    world.start()
    live(world)
    world.wait_for_visits(WARM)
    world.shop.send(event(3, time.time() + HOUR, DEAD))
    world.shop.send(event(3, time.time() - YEAR, LATE))
    world.shop.send(Row(0, time.time() - YEAR, 3, {"amount": 1, "page_id": 1}, LATE))
    world.wait_for_visits(WARM)
    outcome = world.settle()
    assert (outcome.dead, outcome.late, outcome.late_purchases) == (1, 1, 1)
    assert outcome.unmatched == world.shop.kinds[STRAY]
    tell(
        f"{outcome}; one event an hour ahead and an event and a purchase a year behind were put in, and harmed no other row"
    )


def test_a_fast_clock_makes_no_other_row_late(world, tell):
    phone, ahead = 7, 40
    users = [user for user in range(1, 100) if crc32(b"%d" % user) % 8 == crc32(b"%d" % phone) % 8]
    world.start()
    live(world, users=users, fast={phone: ahead})
    world.wait_for_visits(WARM)
    outcome = world.settle()
    assert_only_strays(outcome, world.shop)
    endangered = late_if_marks_were_not_capped(world.shop.sent, world.settings.allowed_lateness)
    assert endangered > WARM / 2
    tell(
        f"{outcome}; {endangered} events would be late had the phone that is {ahead} s fast moved its partition's mark so far"
    )


def test_a_backlog_of_a_year_ago_is_processed_beside_live_rows(world, tell):
    world.with_control()
    start = time.time() - YEAR
    backlog = list(islice(clicks(2, range(1, 1001), start, world.settings.session_gap), 60_000))
    for row in backlog:
        world.shop.send(row)
    world.shop.flush()
    world.start()
    live(world)
    world.wait_for_visits(sum(not row.is_purchase for row in backlog) + WARM)
    outcome = world.settle()
    assert_only_strays(outcome, world.shop)
    lost = world.lost_by_control(outcome)
    assert lost.lost + lost.wrong > 0, f"the control passes, so this test is too weak: {lost}"
    tell(
        f"{outcome}; {len(backlog):,} rows were a year old when they were read, none older than its partition's mark; {lost}"
    )


def test_topics_may_differ_in_partitions(world, tell):
    world.with_topics(user_events=5, purchases=2, visits=3, suspicious_visits=1, unmatched_purchases=7)
    world.start()
    live(world)
    world.wait_for_visits(WARM)
    outcome = world.settle()
    assert_only_strays(outcome, world.shop)
    tell(f"{outcome}; a user's rows are in partitions that have nothing in common, and only strays match nothing")


def test_input_may_have_no_keys(world, tell):
    world.with_unkeyed_input()
    world.start()
    live(world)
    world.wait_for_visits(WARM)
    outcome = world.settle()
    assert_only_strays(outcome, world.shop)
    tell(f"{outcome}; a session's rows lie in all partitions, sent in order, so none is late in its own")


def spread_leaders(kafka: Kafka, topics: tuple[str, ...]) -> None:
    """Every broker leads some partitions of every topic; a real cluster sees to that by itself."""
    if hasattr(kafka, "set_leader"):
        for topic in topics:
            for partition in range(8):
                kafka.set_leader(topic, partition, partition % 3 + 1)


def late_if_marks_were_not_capped(rows: list[Row], lateness: float) -> int:
    """Events of one partition that are farther than the lateness below the highest timestamp before them."""
    late, highest = 0, 0.0
    for row in rows:
        if not row.is_purchase:
            late += row.time < highest - lateness
            highest = max(highest, row.time)
    return late
