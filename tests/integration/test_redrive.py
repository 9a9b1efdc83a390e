"""`redrive` sends each dead letter and late event once, also after a kill, and reports each outcome."""

import ctypes
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import Message, Producer
from support.logs import NOON, event
from support.programs import environment

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings
from dataflow.tools.redrive import command
from dataflow.tools.redriven_header import REDRIVEN
from dataflow.tools.verify import Topics, compare, expected

REPAIR = "jq -c '.user_id |= tonumber'"
NOT_A_NUMBER = "Expected `int`, got `str` - at `$.user_id`"


def of_text(at: float, **fields) -> bytes:
    """An event whose user is a text, so that it cannot be read."""
    return event(at, user="1", **fields)


class Refusing(EmbeddedKafka):
    """Brokers that can be made to refuse something."""

    _PRODUCE, _MSG_SIZE_TOO_LARGE = ctypes.c_int16(0), ctypes.c_int(10)  # of Kafka's protocol

    def refuse_a_row(self) -> None:
        """The next request to take rows is refused for good."""
        push = self._lib.rd_kafka_mock_push_request_errors
        push(ctypes.c_void_p(self._cluster), self._PRODUCE, ctypes.c_size_t(1), self._MSG_SIZE_TOO_LARGE)


@pytest.fixture
def embedded_kafka() -> Iterator[Refusing]:
    with Refusing() as kafka:
        yield kafka


class Shop:
    """Topics of two partitions, and the command on them."""

    def __init__(self, kafka: EmbeddedKafka, run) -> None:
        self.settings = Settings(_env_file=None, brokers=kafka.brokers)
        for topic in self.settings.inputs + self.settings.outputs:
            kafka.create_topic(topic, 2)
        self._producer = Producer({"bootstrap.servers": kafka.brokers, "log_level": 0})
        self._run = run

    def write(self, topic: str, *values: bytes | None, partition: int = 0) -> None:
        for value in values:
            self._producer.produce(topic, value, b"1", partition)
        assert self._producer.flush(30) == 0

    def put_aside(
        self, *values: bytes | None, topic="dead-letters", reason=NOT_A_NUMBER, origin="user-events/0/0", at=NOON
    ):
        """Letters, as the job writes them."""
        names = zip(("reason", "topic", "partition", "offset"), (reason, *origin.split("/")), strict=True)
        headers = [(name, text.encode()) for name, text in names] if origin else []
        for value in values:
            self._producer.produce(topic, value, b"1", 0, headers=headers, timestamp=round(at * 1_000))
        assert self._producer.flush(30) == 0

    def redrive(self, *arguments: str) -> tuple[int, list[str]]:
        """Exit code, and what is said."""
        return self._run(self.settings, arguments)

    def put_back(self) -> list[Message]:
        topics = Topics(self.settings)
        rows = (message for topic in self.settings.inputs for message in topics.read(topic))
        return [message for message in rows if message.headers()]

    def letters_put_back(self) -> Counter[str]:
        """Which letters, and how often each."""
        return Counter(dict(message.headers())[REDRIVEN].decode() for message in self.put_back())


@pytest.fixture
def shop(embedded_kafka, monkeypatch, capsys) -> Shop:
    monkeypatch.setattr(
        command, "install_error_handler", lambda: None
    )  # which would end the tests with their first mistake
    monkeypatch.setenv("COLUMNS", "200")

    def run(settings: Settings, arguments: tuple[str, ...]) -> tuple[int, list[str]]:
        for name, value in environment(settings).items():
            monkeypatch.setenv(name, value)
        try:
            status = command.main(arguments)
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr()
        return status, (said.out + said.err).splitlines()

    return Shop(embedded_kafka, run)


def test_a_repaired_row_returns_to_its_partition_and_becomes_a_visit(shop, programs, embedded_kafka):
    shop.write("user-events", event(0), of_text(3), partition=1)
    run = "bytewax.run", "dataflow:flow"
    assert programs.run(*run, **environment(shop.settings, stop_at_end="1"))[0] == 0
    assert shop.redrive("--repair", REPAIR, "--send") == (0, ["put back: 1"])
    (row,) = shop.put_back()
    assert (row.topic(), row.partition(), row.key()) == ("user-events", 1, b"1")
    assert json.loads(row.value()) == json.loads(event(3))

    again = shop.settings.model_copy(update={"group": "again", "topic_visits": "visits-again"})
    embedded_kafka.create_topic("visits-again", 2)
    assert programs.run(*run, **environment(again, stop_at_end="1"))[0] == 0
    topics = Topics(again)
    differences = {each.topic: each for each in compare(again, topics, expected(again, topics))}
    assert not differences["visits-again"]
    assert differences["visits-again"].expected == 2


def test_no_dead_letter_is_sent_twice(shop):
    shop.put_aside(*(of_text(at) for at in range(3)))
    assert shop.redrive("--message", "dead-letters/0/1", "--repair", REPAIR, "--send") == (0, ["put back: 1"])
    status, lines = shop.redrive("--repair", REPAIR, "--send")
    assert (status, lines) == (0, ["put back: 2; put back before: 1"])
    assert shop.redrive("--repair", REPAIR, "--send") == (0, ["put back: 0; put back before: 3"])
    assert shop.letters_put_back() == {f"dead-letters/0/{offset}": 1 for offset in range(3)}


def test_a_redrive_killed_twice_sends_each_row_once(shop, programs):
    count = 40
    shop.put_aside(*(of_text(0, number=number) for number in range(count)))
    run = "dataflow", "redrive", "--repair", f"sleep 0.02; {REPAIR}", "--send"
    reached = []
    for _ in range(2):
        before = shop.letters_put_back().total()
        process = programs.start(*run, **environment(shop.settings))
        deadline = time.monotonic() + 60
        while shop.letters_put_back().total() < before + 3:
            assert process.poll() is None, process.log.read_text()
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
        process.wait()
        reached.append(shop.letters_put_back().total())
    assert reached[-1] < count, "it was killed too late to show anything"
    status, lines = programs.run(*run, **environment(shop.settings))
    assert status == 0, lines
    assert shop.letters_put_back() == {f"dead-letters/0/{offset}": 1 for offset in range(count)}


def test_a_second_redrive_at_the_same_time_is_refused(shop, programs):
    shop.put_aside(*(of_text(0) for _ in range(40)))
    first = programs.start(
        "dataflow", "redrive", "--repair", f"sleep 0.3; {REPAIR}", "--send", **environment(shop.settings)
    )
    while not shop.put_back():
        assert first.poll() is None, first.log.read_text()
    status, lines = shop.redrive("--repair", REPAIR, "--send")
    assert status == 1
    assert "another copy of job 'visits-redrive' is running" in lines[-1]
    first.kill()


def test_a_dry_run_reports_the_same_and_sends_nothing(shop):
    shop.put_aside(of_text(0), of_text(1), event(2), b"hello")
    status, lines = shop.redrive("--repair", REPAIR, "--dry-run", "--show", "1")
    assert status == 1
    assert lines[1].split(":")[0].strip() == '{"event_type"' and '"user_id":1,' in lines[1]
    assert lines[-1] == "would be put back: 3; not repaired: 1"
    assert not shop.put_back()


def test_an_unreadable_row_is_not_sent_and_the_reason_is_shown(shop):
    shop.put_aside(of_text(0), None, event(10**9), event(1))
    status, lines = shop.redrive("--send")
    assert status == 0
    assert lines == [
        f"dead-letters/0/0: still unreadable: {NOT_A_NUMBER}",
        "dead-letters/0/1: still unreadable: the message has no value",
        "dead-letters/0/2: still unreadable: timestamp is more than 60 s ahead of the clock",
        "put back: 1; still unreadable: 3",
    ]


def test_a_row_that_would_be_late_is_sent_only_on_request(shop):
    shop.write("user-events", event(100))
    shop.put_aside(event(94), event(95), topic="late-events", reason="late")
    status, lines = shop.redrive("late-events", "--send")
    assert (status, lines[0], lines[1]) == (
        0,
        "late-events/0/0: would be late: 6 s below the highest time of user-events/0, 2024-03-13 12:01:40; 5 s are allowed",
        "put back: 1; would be late: 1",
    )
    assert shop.redrive("late-events", "--send", "--even-if-late")[1] == ["put back: 1; put back before: 1"]


def test_a_late_row_with_the_present_time_is_on_time(shop):
    shop.write("user-events", event(100))
    shop.put_aside(event(0, referrer="é"), topic="late-events", reason="late")
    began = time.time()
    assert shop.redrive("late-events", "--now", "--send") == (0, ["put back: 1"])
    (row,) = shop.put_back()
    fields = json.loads(row.value())
    assert began - 0.001 <= fields.pop("timestamp") <= time.time()
    assert fields == {key: value for key, value in json.loads(event(0, referrer="é")).items() if key != "timestamp"}


def test_rows_that_the_repair_command_drops_or_fails_on_are_reported(shop):
    shop.put_aside(event(0), event(1), event(2))
    fails_at_second = (
        'grep -v 1710331202 | { read -r row || exit 0; case "$row" in *201*) echo no >&2; exit 3;; esac; echo "$row"; }'
    )
    status, lines = shop.redrive("--repair", fails_at_second, "--send")
    assert (status, lines) == (
        1,
        [
            "dead-letters/0/1: not repaired: exit code 3, no",
            "put back: 1; not repaired: 1; left out by the repair command: 1",
        ],
    )


def test_a_failed_delivery_is_reported_and_can_be_retried(shop, embedded_kafka):
    shop.put_aside(event(0))
    embedded_kafka.refuse_a_row()
    assert shop.redrive("--send") == (
        1,
        ["dead-letters/0/0: not delivered: Broker: Message size too large", "put back: 0; not delivered: 1"],
    )
    assert shop.redrive("--send") == (0, ["put back: 1"])


def test_a_row_that_the_client_refuses_is_reported_and_not_counted(shop, monkeypatch):
    shop.put_aside(event(0), event(1, padding="x" * 5_000))
    monkeypatch.setattr(
        "dataflow.tools.redrive.sender._ESSENTIAL", {"enable.idempotence": True, "message.max.bytes": 2_000}
    )
    status, lines = shop.redrive("--send")
    assert status == 1
    assert lines[0].startswith("dead-letters/0/1: not delivered: ")
    assert lines[1] == "put back: 1; not delivered: 1"


def test_rows_of_other_jobs_are_not_sent(shop):
    shop.put_aside(event(0), origin="elsewhere/0/1")
    shop.put_aside(event(0), origin="user-events/2/1")
    shop.put_aside(event(0), origin="")
    _, lines = shop.redrive("--send")
    assert lines == [
        "dead-letters/0/0: not of this job: it came from elsewhere/0/1",
        "dead-letters/0/1: not of this job: it came from user-events/2/1",
        "dead-letters/0/2: not of this job: it does not say where it came from",
        "put back: 0; not of this job: 3",
    ]


def test_dead_letters_are_counted_by_topic_origin_and_reason(shop):
    shop.put_aside(of_text(0), of_text(1))
    shop.put_aside(b"{", reason="truncated", origin="purchases/1/7", at=NOON + 60)
    shop.put_aside(event(0), topic="late-events", reason="late")

    def counts(*arguments: str) -> list[list[str]]:
        status, lines = shop.redrive(*arguments)
        assert status == 0
        return [re.split(r"\s{2,}", line.strip()) for line in lines[1:]]

    noon, later = "2024-03-13 12:00:00", "2024-03-13 12:01:00"
    number = ["dead-letters", "user-events", "2", noon, noon, NOT_A_NUMBER]
    truncated = ["dead-letters", "purchases", "1", later, later, "truncated"]
    late = ["late-events", "user-events", "1", noon, noon, "late"]
    assert counts() == [number, truncated, late]
    assert counts("dead-letters") == [number, truncated]
    assert counts("--reason", "trunc") == [truncated]
    assert counts("--topic", "purchases") == [truncated]
    assert counts("--since", "2024-03-13T12:01") == [truncated]
    assert counts("--until", str(NOON + 60)) == [number, late]
    assert counts("--message", "late-events/0/0") == [late]
    assert shop.redrive("--reason", "none such") == (0, ["There are no such rows."])


@pytest.mark.parametrize(
    ("wrong", "status", "line"),
    [
        (["--show", "many"], 2, "not a number: 'many'"),
        (["--since", "soon"], 2, "neither a time (2024-03-13T12:00) nor Unix seconds: 'soon'"),
        (["--message", "17"], 2, "not a message, topic/partition/offset: '17'"),
        (["--message", "visits/0/17"], 1, "visits/0/17: rows to put back are in dead-letters or late-events"),
        (["--topic", "visits"], 1, "visits is not an input topic; these are user-events and purchases"),
        (["--now"], 2, "add --send, or --dry-run to try"),
        (["--repair", "no-such-command", "--send"], 1, "the repair command cannot be run: "),
    ],
)
def test_a_wrong_argument_ends_in_one_line(shop, wrong, status, line):
    shop.put_aside(event(0))
    found, lines = shop.redrive(*wrong)
    assert found == status
    assert line in lines[-1]
    assert lines[-1].startswith("visits: ")
