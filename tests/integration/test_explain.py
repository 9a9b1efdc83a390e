"""`python -m dataflow explain` on topics that the job has written: it agrees with them, and says where they differ."""

import json
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer
from support.logs import event, purchase, session_id
from support.programs import Programs, environment, said_only_totals

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings
from dataflow.tools.explain import command
from dataflow.tools.redriven_header import REDRIVEN

Explain = Callable[..., tuple[int, list[str]]]

VISITS = session_id(1, 0), session_id(1, 60)
LOG = {
    ("user-events", 0): [
        event(0),
        event(10, "purchase", page=7),
        event(60, "click"),
        event(12),  # late
        event(60, user="x"),  # unreadable
        *(event(61 + at, user=2) for at in range(6)),
    ],
    ("user-events", 1): [event(5, user=3), event(200, user=4)],
    ("purchases", 0): [purchase(7, "3.10"), purchase(14, "2.50", page=7), purchase(100, 1)],
}


def write(brokers: str, topic: str, partition: int, value: bytes, headers: list | None = None) -> None:
    producer = Producer({"bootstrap.servers": brokers, "log_level": 0})
    producer.produce(topic, value, b"1", partition, headers=headers or [])
    assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Iterator[Settings]:
    """Topics that the job has read to their end and written."""
    with EmbeddedKafka() as kafka:
        settings = Settings(_env_file=None, brokers=kafka.brokers)
        for topic in settings.inputs + settings.outputs:
            kafka.create_topic(topic, 2)
        for (topic, partition), values in LOG.items():
            for value in values:
                write(kafka.brokers, topic, partition, value)
        programs = Programs(tmp_path_factory.mktemp("job"))
        assert said_only_totals(programs.run("bytewax.run", "dataflow:flow", **environment(settings, stop_at_end="1")))
        yield settings


@pytest.fixture
def explain(written, monkeypatch, capsys) -> Explain:
    def run(*arguments: str, settings: Settings = written, **more: str) -> tuple[int, list[str]]:
        for name, value in environment(settings, **more).items():
            monkeypatch.setenv(name, value)
        try:
            status = command.main(arguments)
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        return status, (said.out + said.err).splitlines()

    return run


def data(report: tuple[int, list[str]]) -> dict:
    status, lines = report
    assert status == 0, lines
    return json.loads("\n".join(lines))


@pytest.mark.parametrize("user", ["1", "2", "3", "4"])
def test_explain_agrees_with_the_rows_that_the_job_wrote(explain, user):
    report = data(explain("--user", user, "--json"))
    assert (report["agrees"], report["differences"]) == (True, [])
    assert all("written" in session["in_topics"] for session in report["sessions"])


def test_explain_draws_a_users_sessions_amounts_and_late_rows(explain):
    status, lines = explain("--user", "1")
    text = "\n".join(lines)
    assert status == 0
    for part in (
        "user 1: 3 events on time, 3 purchase rows, 2 sessions, 1 late, 1 dead letter",
        f"session {VISITS[0]}",
        "┌ began 2024-03-13 12:00:00: the first event of this user",
        "12:00:10               +10 s  purchase   page 7      user-events/0/1",
        "2.50  purchases/0/1  4 s later, page 7  taken: of the same page",
        "3.10  purchases/0/0  3 s earlier, page 1  not taken: the other is of the same page",
        "└ ended 2024-03-13 12:00:10: the next event is 50 s later, more than the gap of 20 s",
        "amount 2.50, of the purchase event at 12:00:10",
        "suspicious, type 2: no page-view among its 1 event",
        "late  2024-03-13 12:00:12  page-view  user-events/0/3",
        "48 s below the highest time of its partition, 5 s are allowed: row 2 set it to 2024-03-13 12:01:00",
        "unmatched  2024-03-13 12:00:07  purchase row of 3.10  purchases/0/0",
        "every purchase event of this user within 5 s of it takes another row",
        "unmatched  2024-03-13 12:01:40  purchase row of 1  purchases/0/2",
        "no purchase event of this user lies within 5 s of it",
        "dead letter  user-events/0/4",
        "The output topics hold exactly this.",
    ):
        assert part in text, part
    assert "suspicious, type 1: 6 events are more than 5" in "\n".join(explain("--user", "2")[1])


def test_explain_finds_a_session_by_its_id(explain):
    report = data(explain("--session", VISITS[0], "--json"))
    assert [session["session_id"] for session in report["sessions"]] == [VISITS[0]]
    assert [late["message"] for late in report["late"]] == ["user-events/0/3"]


def test_explain_finds_an_unwritten_session_by_its_first_event(explain, written):
    nothing_written = {f"topic_{name}": f"{name}-2" for name in ("visits", "suspicious_visits", "sessions")}
    kafka = Producer({"bootstrap.servers": written.brokers, "log_level": 0})
    for topic in nothing_written.values():
        kafka.list_topics(topic, timeout=10)
    report = data(explain("--session", VISITS[0].upper(), "--json", **nothing_written))
    assert [session["in_topics"] for session in report["sessions"]] == ["not written yet"]


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("user-events/0/1", [("sessions", VISITS[0])]),
        ("purchases/0/0", [("sessions", VISITS[0]), ("unmatched_purchases", "purchases/0/0")]),
        ("purchases/0/1", [("sessions", VISITS[0])]),
        ("user-events/0/3", [("late", "user-events/0/3")]),
        ("user-events/0/4", [("dead_letters", "user-events/0/4")]),
        ("purchases/0/2", [("unmatched_purchases", "purchases/0/2")]),
    ],
)
def test_explain_says_what_became_of_a_message(explain, message, found):
    report = data(explain("--message", message, "--json"))
    shown = [
        (kind, row.get("session_id") or row["message"])
        for kind in ("sessions", "late", "dead_letters", "unmatched_purchases")
        for row in report[kind]
    ]
    assert shown == found
    assert report["agrees"]


def test_explain_reports_topics_written_with_other_settings(explain):
    report = data(explain("--user", "1", "--json", session_gap="8"))
    assert not report["agrees"]
    whats = {(each["topic"], each["of"], each["rows"]): each["what"] for each in report["differences"]}
    assert "written with other settings" in whats["visits", f"session {VISITS[0]}", 2]


def test_explain_reports_missing_and_duplicate_rows(explain, written):
    with EmbeddedKafka() as kafka:
        settings = written.model_copy(update={"brokers": kafka.brokers})
        for topic in settings.inputs + settings.outputs:
            kafka.create_topic(topic, 1)
        write(kafka.brokers, "user-events", 0, event(0))
        write(kafka.brokers, "user-events", 0, event(1), [(REDRIVEN, b"dead-letters/1/5")])
        report = data(explain("--user", "1", "--json", settings=settings, stop_at_end="1"))
        missing = [(each["topic"], each["rows"], each["what"][:7]) for each in report["differences"]]
        assert missing == [("visits", 2, "missing"), ("sessions", 1, "missing")]
        assert [each["redriven_from"] for each in report["sessions"][0]["events"]] == [None, "dead-letters/1/5"]
        for row in report["sessions"][0]["visits"]:
            write(kafka.brokers, "visits", 0, row.encode())
        write(kafka.brokers, "sessions", 0, report["sessions"][0]["session_row"].encode())
        assert data(explain("--user", "1", "--json", settings=settings, stop_at_end="1"))["agrees"]
        write(kafka.brokers, "visits", 0, row.encode())
        (difference,) = data(explain("--user", "1", "--json", settings=settings))["differences"]
        assert (difference["rows"], difference["what"]) == (1, "written more than once")


def test_explain_follows_the_job_on_rows_late_after_an_idle_partition(explain, written):
    with EmbeddedKafka() as kafka:
        settings = written.model_copy(update={"brokers": kafka.brokers})
        for topic in settings.inputs + settings.outputs:
            kafka.create_topic(topic, 1)
        write(kafka.brokers, "user-events", 0, event(0))
        origin = {"reason": "late", "topic": "user-events", "partition": "0", "offset": "0"}
        write(kafka.brokers, "late-events", 0, event(0), [(name, text.encode()) for name, text in origin.items()])
        report = data(explain("--user", "1", "--json", settings=settings))
        assert report["agrees"] and not report["sessions"]
        assert [(row["message"], row["overtaken"]) for row in report["late"]] == [("user-events/0/0", True)]
        assert "the partition was idle and the watermark had passed the row" in str(
            explain("--user", "1", settings=settings)
        )


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["--user", ""], 2, "not a user's id: ''; a user is named by its user_id"),
        (["--user", "x"], 1, "there is no row of user x"),
        (["--user", "5"], 1, "there is no row of user 5"),
        (["--session", "abc"], 2, "not a session id, 32 hexadecimal digits: 'abc'"),
        (["--session", "0" * 32], 1, f"there is no session {'0' * 32}"),
        (["--message", "user-events/1042"], 2, "not a message, topic/partition/offset: 'user-events/1042'"),
        (
            ["--message", "user-events/0/99"],
            1,
            "there is no message user-events/0/99: the partition holds offsets 0 to 10",
        ),
        (["--message", "purchases/1/0"], 1, "there is no message purchases/1/0: the partition is empty"),
        (["--message", "user-events/7/0"], 1, "user-events has no partition 7; it has 2, counted from 0"),
        (["--message", "visits/0/0"], 1, "visits is not an input topic; these are user-events and purchases"),
        ([], 2, "one of the arguments --user --session --message is required"),
    ],
)
def test_a_wrong_argument_ends_in_one_line(explain, arguments, status, line):
    found, lines = explain(*arguments)
    assert (found, len(lines)) == (status, 1), lines
    assert lines[0].startswith("visits: ") and line in lines[0]


def test_commands_start_as_subcommands_of_dataflow(written, programs):
    wrong = {**environment(written), "VISITS_SHARD": "1"}
    status, lines = programs.run("dataflow", "explain", "--user", "1", **wrong)
    assert (status, lines) == (1, ["visits: there is no setting VISITS_SHARD; did you mean VISITS_SHARDS?"])
    assert programs.run("dataflow", "redrive", "--show", "x")[0] == 2
    assert programs.run("dataflow", "explian")[0] == 2
