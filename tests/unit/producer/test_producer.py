"""The simulated shop, recorded files and pacing, without Kafka."""

import gzip
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import islice, pairwise
from pathlib import Path

import pytest

from dataflow.streaming.errors import UserError
from producer import options, timestamps
from producer.pace import AT_ONCE, Pace, delayed, shifted
from producer.recording import Recording, integer_id
from producer.rows import Row
from producer.shop import natural_rate, simulate
from producer.sorting import sorted_by_time

NOON = 1_710_331_200.0  # 2024-03-13 12:00:00 UTC
GAP, WINDOW = 20, 5


def decoded(rows: Iterable[Row]) -> tuple[list[dict], list[dict]]:
    """User events and purchases."""
    rows = list(rows)
    events = [json.loads(row.value) for row in rows if not row.purchase]
    return events, [json.loads(row.value) for row in rows if row.purchase]


def sessions(events: list[dict]) -> list[list[dict]]:
    by_user = defaultdict(list)
    for event in events:
        by_user[event["user_id"]].append(event)
    found = []
    for of_user in by_user.values():
        found.append([of_user[0]])
        for before, event in pairwise(of_user):
            if event["timestamp"] - before["timestamp"] > GAP:
                found.append([])
            found[-1].append(event)
    return found


# --- the shop


def test_the_same_seed_and_start_give_the_same_bytes():
    first, second, other = (list(simulate(start=NOON, rate=3, events=500, seed=seed)) for seed in (7, 7, 8))
    assert first == second
    assert first != other


def test_another_start_moves_the_same_shop():
    here, there = (decoded(simulate(start=start, rate=3, events=300)) for start in (NOON, NOON + 1000))
    for row in there[0] + there[1]:
        row["timestamp"] = round(row["timestamp"] - 1000, 3)
    assert here == there


def test_rows_come_in_order_of_event_time_from_the_start_on():
    times = [row.time for row in simulate(start=NOON, rate=50, users=40, events=2000)]
    assert times == sorted(times)
    assert times[0] >= NOON


def test_rows_have_the_fields_of_their_topic_and_whole_milliseconds():
    events, purchases = decoded(simulate(start=NOON, rate=3, events=500))
    assert all(event.keys() == {"event_type", "user_id", "page_id", "timestamp"} for event in events)
    assert all(row.keys() == {"amount", "user_id", "page_id", "timestamp"} for row in purchases)
    assert all(row["timestamp"] == round(row["timestamp"], 3) for row in events + purchases)
    assert {event["event_type"] for event in events} == {"page-view", "click", "search", "purchase"}
    assert {event["user_id"] for event in events} == set(range(1, 21))


@pytest.mark.parametrize(
    ("users", "rate", "events", "tolerance"),
    [
        (20, 0.1, 400, 0.05),
        (20, 3, 3000, 0.03),
        (20, 1000, 40_000, 0.01),
        (3, 5, 2000, 0.02),
        (1, 1, 2000, 0.05),
        (10_000, 1000, 40_000, 0.01),
    ],
)
def test_the_rate_holds_whatever_the_number_of_users(users, rate, events, tolerance):
    rows, _ = decoded(simulate(start=NOON, rate=rate, users=users, events=events))
    assert len(rows) == events
    assert events / (rows[-1]["timestamp"] - NOON) == pytest.approx(rate, rel=tolerance)


def test_a_busy_shop_holds_its_rate_in_every_second():
    rows, _ = decoded(simulate(start=NOON, rate=500, users=20, events=20_000))
    per_second = defaultdict(int)
    for row in rows:
        per_second[int(row["timestamp"] - NOON)] += 1
    assert all(per_second[second] == pytest.approx(500, rel=0.2) for second in range(35))


@pytest.mark.parametrize(("users", "rate"), [(20, 3), (20, 1), (20, 200), (1, 5)])
def test_users_rest_longer_than_the_gap_and_dawdle_for_half_of_it_at_most(users, rate):
    events, _ = decoded(simulate(start=NOON, rate=rate, users=users, events=200 * rate))
    found = sessions(events)
    assert len(found) > users
    for session in found:
        assert all(after["timestamp"] - before["timestamp"] <= GAP / 2 for before, after in pairwise(session))


def test_bots_make_many_events_and_some_visitors_never_view_a_page():
    events, _ = decoded(simulate(start=NOON, rate=natural_rate(20), events=3000))
    found = sessions(events)
    blind = [session for session in found if all(event["event_type"] != "page-view" for event in session)]
    bots = [session for session in found if len(session) >= 12]
    assert 0.05 < len(blind) / len(found) < 0.2
    assert 0.05 < len(bots) / len(found) < 0.2
    assert sum(len(session) <= 5 for session in found) / len(found) > 0.5


def test_a_purchase_row_in_five_is_farther_than_the_match_window():
    events, purchases = decoded(simulate(start=NOON, rate=20, users=200, events=20_000))
    bought = [event for event in events if event["event_type"] == "purchase"]
    assert len(bought) == len(purchases) > 1000
    matched = [
        row
        for row in purchases
        if any(e["user_id"] == row["user_id"] and abs(e["timestamp"] - row["timestamp"]) <= WINDOW for e in bought)
    ]
    assert len(matched) / len(purchases) == pytest.approx(0.8, abs=0.03)


def test_every_purchase_row_is_on_the_page_of_its_event_and_lies_before_or_after_it():
    events, purchases = decoded(simulate(start=NOON, rate=20, users=200, events=5000))
    pages = {(event["user_id"], event["page_id"]) for event in events if event["event_type"] == "purchase"}
    assert all((row["user_id"], row["page_id"]) in pages for row in purchases)
    assert all(row["amount"] > 0 and row["amount"] == round(row["amount"], 2) for row in purchases)


def test_the_number_of_events_counts_user_events_and_brings_their_purchases():
    for number in (1, 10, 100):
        events, purchases = decoded(simulate(start=NOON, rate=5, users=50, events=number))
        assert len(events) == number
        assert len(purchases) == sum(event["event_type"] == "purchase" for event in events)


def test_a_shop_without_end_goes_on():
    assert len(list(islice(simulate(start=NOON, rate=3), 5000))) == 5000


def test_the_shop_follows_the_job_s_gap_and_match_window():
    events, purchases = decoded(simulate(start=NOON, rate=2, events=1000, gap=60, window=0))
    bought = [(event["user_id"], event["timestamp"]) for event in events if event["event_type"] == "purchase"]
    exact = [row for row in purchases if (row["user_id"], row["timestamp"]) in bought]
    assert len(exact) / len(purchases) == pytest.approx(0.8, abs=0.15)
    of_user = [event["timestamp"] for event in events if event["user_id"] == 1]
    assert not any(30 < after - before <= 60 for before, after in pairwise(of_user))


# --- pacing


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("speed", "wait"), [(1, 30), (10, 3), (AT_ONCE, 0)])
def test_speed_divides_the_wait(speed, wait):
    pace = Pace(speed, first=NOON, live=False, clock=Clock(5_000_000))
    assert pace.wait_for(NOON + 30) == wait


def test_waiting_ends_as_the_clock_goes_on():
    clock = Clock(NOON)
    pace = Pace(1, first=NOON, live=True, clock=clock)
    clock.now += 10
    assert pace.wait_for(NOON + 30) == 20
    assert pace.wait_for(NOON + 5) == -5


def test_a_live_row_is_never_sent_before_its_event_time():
    pace = Pace(AT_ONCE, first=NOON - 180, live=True, clock=Clock(NOON))
    assert pace.wait_for(NOON - 1) == 0
    assert pace.wait_for(NOON + 1) == 1


def test_history_at_speed_10_catches_up_with_the_clock_and_stays_there():
    pace = Pace(10, first=NOON - 90, live=True, clock=Clock(NOON))
    assert [pace.due(time) - NOON for time in (NOON - 90, NOON - 40, NOON + 10, NOON + 20)] == [0, 5, 10, 20]


def test_without_disorder_rows_leave_at_their_time():
    rows = list(simulate(start=NOON, rate=3, events=50))
    assert list(delayed(rows, 0, seed=1)) == [(row.time, row) for row in rows]


def test_disorder_delays_rows_by_at_most_its_seconds_and_loses_none():
    rows = list(simulate(start=NOON, rate=20, events=1000))
    sent = list(delayed(rows, 8, seed=1))
    assert sorted(row for _, row in sent) == sorted(rows)
    assert [leaves for leaves, _ in sent] == sorted(leaves for leaves, _ in sent)
    assert all(0 <= leaves - row.time <= 8 for leaves, row in sent)
    assert [row for _, row in sent] != rows
    assert sent == list(delayed(rows, 8, seed=1))
    assert sent != list(delayed(rows, 8, seed=2))


def test_shifted_rows_keep_their_distances():
    times = NOON, NOON + 20.25
    rows = [Row(time, False, 1, json.dumps({"timestamp": time, "page_id": 3}).encode()) for time in times]
    moved = [json.loads(row.value) for row in shifted(rows, 1000)]
    assert moved == [{"timestamp": NOON + 1000, "page_id": 3}, {"timestamp": NOON + 1020.25, "page_id": 3}]


# --- sorting


@pytest.mark.parametrize("in_memory", [1, 2, 3, 7, 100])
def test_rows_are_sorted_whether_or_not_they_fit_in_memory(in_memory):
    rows = [Row(NOON + time, False, number, b"x") for number, time in enumerate([3, 1, 2, 1, 3, 0, 2])]
    assert [row.user_id for row in sorted_by_time(rows, in_memory)] == [5, 1, 3, 2, 6, 0, 4]


# --- times


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (1710331200, 1710331200),
        (1710331200.25, 1710331200.25),
        ("1710331200", 1710331200),
        ("1710331200.123456", 1710331200.123456),
        (1710331200123, 1710331200.123),
        ("1710331200123456", 1710331200.123456),
        ("2024-03-13 12:00:00", 1710331200),
        ("2024-03-13T12:00:00Z", 1710331200),
        ("2024-03-13T12:00:00.5Z", 1710331200.5),
        ("2024-03-13T14:00:00+02:00", 1710331200),
        (" 2024-03-13 ", 1710288000),
    ],
)
def test_times_are_unix_numbers_or_iso_dates(written, seconds):
    assert timestamps.parse(written) == seconds


@pytest.mark.parametrize("written", ["noon", "", "nan", "13.03.2024", None, True, [1], 1e30, "2024-13-01 00:00:00"])
def test_a_text_that_is_no_time_is_refused(written):
    with pytest.raises(ValueError, match="is not a time"):
        timestamps.parse(written)


# --- recorded files


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes, name: str = "clicks") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def read(
    path: Path, columns: dict | None = None, constants: dict | None = None
) -> tuple[list[Row], list[tuple[int, str]]]:
    """Rows and complaints, each of these a line number and a reason."""
    complaints: list[tuple[int, str]] = []
    rows = list(Recording(path, columns or {}, constants or {}).rows(lambda *complaint: complaints.append(complaint)))
    return rows, complaints


def test_csv_columns_are_mapped_and_others_stay(write):
    path = write("visitor,when,event,source\n7,2024-03-13 12:00:00,page-view,mail\n")
    rows, complaints = read(path, {"user_id": "visitor", "timestamp": "when", "event_type": "event"}, {"page_id": "0"})
    assert complaints == []
    assert [json.loads(row.value) for row in rows] == [
        {"event_type": "page-view", "user_id": 7, "page_id": 0, "timestamp": 1710331200, "source": "mail"}
    ]
    assert rows[0] == (NOON, False, 7, rows[0].value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_json_lines_are_read_with_all_their_fields(write, pack):
    lines = [
        {"event_type": "click", "user_id": 2**70, "page_id": 1, "timestamp": NOON + 0.5, "more": {"a": [1, None]}},
        {"amount": 12.5, "user_id": 3, "page_id": 1, "timestamp": NOON},
    ]
    rows, complaints = read(write(pack("\n".join(map(json.dumps, lines)).encode())))
    assert complaints == []
    assert [json.loads(row.value) for row in rows] == lines
    assert [row.purchase for row in rows] == [False, True]


def test_an_amount_without_event_type_makes_a_purchases_row(write):
    path = write(
        f"event_type,amount,user_id,page_id,timestamp\nclick,,1,1,{NOON}\n,9.5,1,1,{NOON}\nsale,3,1,1,{NOON}\n"
    )
    events, purchases = decoded(read(path)[0])
    whose = {"user_id": 1, "page_id": 1, "timestamp": NOON}
    assert events == [{"event_type": "click", **whose}, {"event_type": "sale", "amount": "3", **whose}]
    assert purchases == [{"amount": 9.5, **whose}]


def test_a_text_id_becomes_a_stable_integer_beside_the_original(write):
    path = write(f"event_type,user_id,page_id,timestamp\nclick,user_0042,/home,{NOON}\nclick,-5,007,{NOON}\n")
    events, _ = decoded(read(path)[0])
    assert events[0]["user_id"] == integer_id("user_0042") == 877_483_372_826_307_745
    assert events[0]["original_user_id"] == "user_0042"
    assert events[0]["original_page_id"] == "/home"
    assert events[1]["user_id"] == -5
    assert "original_user_id" not in events[1]
    assert events[1]["original_page_id"] == "007"


def test_a_bad_line_is_named_with_its_reason_and_the_others_go_on(write):
    path = write(
        b"event_type,user_id,page_id,timestamp,amount\n"
        b"click,1,1,noon,\n"
        b"click,1,1\n"
        b",1,1,1710331200,\n"
        b"click,,1,1710331200,\n"
        b",1,1,1710331200,much\n"
        b"cl\xffck,1,1,1710331200,\n"
        b"\n"
        b"click,1,1,1710331200,\n"
    )
    rows, complaints = read(path)
    assert len(rows) == 1
    assert [line for line, _ in complaints] == [2, 3, 4, 5, 6, 7]
    assert [reason.split(":")[0] for _, reason in complaints] == [
        "'noon' is not a time",
        "3 fields where the header has 5",
        "neither event_type nor amount",
        "no user_id",
        "amount 'much' is not a number",
        "not UTF-8",
    ]


def test_a_bad_json_line_is_named_with_its_reason(write):
    good = json.dumps({"event_type": "click", "user_id": 1, "page_id": 1, "timestamp": NOON}).encode()
    lines = [good, b"{", b"[1]", good.replace(b"1", b"true", 1), b'{"a": "\xff"}', good]
    rows, complaints = read(write(b"\n".join(lines)))
    assert len(rows) == 2
    assert [line for line, _ in complaints] == [2, 3, 4, 5]
    assert complaints[1][1] == "not a JSON object"
    assert complaints[2][1] == "user_id True is neither an integer nor text"
    assert complaints[3][1] == "not UTF-8"


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("a,b\n1,2\n", {"user_id": "c"}, "has no column 'c' for user_id; it has a, b"),
        ("user_id,page_id\n", {}, "has no column 'timestamp'; it has user_id, page_id; use --map timestamp=COLUMN"),
        ("user_id,page_id,timestamp\n", {}, "neither a column 'event_type' nor 'amount'"),
        ('{"user_id": 1}\n', {}, "has no column 'page_id'; it has user_id"),
        ("", {}, "it is empty"),
        ("[1]", {}, "is one JSON array"),
    ],
)
def test_a_missing_column_is_an_error_that_lists_the_columns(write, content, columns, message):
    with pytest.raises(UserError) as error:
        read(write(content), columns)
    assert message in str(error.value)


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: whole[:400] + whole[-400:]])
def test_a_damaged_file_is_an_error(write, damage):
    whole = gzip.compress(b"event_type,user_id,page_id,timestamp\n" + b"click,1,1,1710331200\n" * 100_000)
    with pytest.raises(UserError, match="cannot read"):
        read(write(damage(whole)))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_may_come_with_other_delimiters_quotes_and_a_byte_order_mark(write, delimiter):
    lines = [["event_type", "user_id", "page_id", "timestamp", "note"], ["click", "1", "2", "1710331200", '"a\nb"']]
    path = write("\ufeff" + "\r\n".join(map(delimiter.join, lines)))
    rows, complaints = read(path)
    assert complaints == []
    assert json.loads(rows[0].value)["note"] == "a\nb"


# --- options


def test_defaults_make_a_live_shop_of_twenty_users():
    parsed = options.parse([])
    assert (parsed.users, parsed.rate, parsed.speed, parsed.events, parsed.file) == (20, 3, 1, None, None)


def test_history_is_sent_at_once_unless_a_speed_is_given():
    assert options.parse(["--history", "180"]).speed == math.inf
    assert options.parse(["--history", "180", "--speed", "10"]).speed == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rate 0", "argument --rate: 0 is not above 0"),
        ("--users 1.5", "argument --users: '1.5' is not a whole number above 0"),
        ("--speed fast", "argument --speed: 'fast' is not a number"),
        ("--start noon", "argument --start: 'noon' is not a time"),
        ("--start 1 --history 5", "--start and --history both say when to begin"),
        ("--speed max", "a shop that begins now cannot outrun the clock"),
        ("--map a=b", "--map is for a recorded FILE"),
        ("--shift-to-now", "--shift-to-now is for a recorded FILE"),
        ("clicks.csv --rate 5", "--rate is for the simulated shop"),
        ("clicks.csv --map a", "argument --map: 'a' is not FIELD=COLUMN"),
        ("clicks.csv --map a=b --map a=c", "argument --map: a is given twice"),
    ],
)
def test_wrong_options_end_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        options.parse(arguments.split())
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert told.startswith("producer: " + message)
    assert told.count("\n") == 1
