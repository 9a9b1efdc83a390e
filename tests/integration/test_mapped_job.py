"""A job with a mapping of everything at once: the batch answer after a kill, and what `explain` and `redrive` make of it."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from support.jobs import assert_right, count_visits, differences, wait_until, with_mapping, writer
from support.logs import NOON
from support.programs import environment

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.kafka.messages import Message
from dataflow.runtime.settings import Settings
from dataflow.tools.explain import command as explain_command
from dataflow.tools.redrive import command as redrive_command
from dataflow.tools.redriven_header import REDRIVEN
from dataflow.tools.verify import Topics

# "app" and "mixed" hold several events a message, "mixed" purchase rows as well, "paid" one purchase row a message
MAPPING = """
[events]
topics     = ["app-{0}", "mixed-{0}"]
each       = "events"
user       = ["uid", "@message.client", "@key.id", "@header.user"]
type       = "kind"
page       = ["page", "props.page"]
time       = "at"
amount     = "total"
page_views = ["view"]
purchases  = ["buy"]
ignore     = ["ping"]

[purchases]
topics          = ["mixed-{0}", "paid-{0}"]
user            = ["customer", "@key.id"]
time            = "paid_at"
amount          = "cents"
amount_decimals = 2
page            = "page"

[output]
session_id = "visit"

[rules]
session_gap = 30
"""
PARTITIONS = 3


@pytest.fixture
def mapped(embedded_kafka: EmbeddedKafka, embedded_settings: Settings, tmp_path: Path) -> Settings:
    suffix = embedded_settings.group.removeprefix("visits-")
    for name in "app", "mixed", "paid":
        embedded_kafka.create_topic(f"{name}-{suffix}", PARTITIONS)
    (tmp_path / "mapping.toml").write_text(MAPPING.format(suffix))
    return with_mapping(embedded_settings, tmp_path / "mapping.toml")


class Shop:
    """Writes what a shop of this shape might."""

    def __init__(self, settings: Settings, seed: int = 7) -> None:
        self.app, self.mixed, self.paid = settings.inputs
        self._settings = settings
        self._rng = random.Random(seed)
        self._producer = writer(settings.brokers)

    def write(self, topic: str, partition: int, value: Any, key: bytes | None = None, headers: Any = ()) -> None:
        data = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        self._producer.produce(topic, data, key, partition, headers=list(headers))

    def flush(self) -> None:
        assert self._producer.flush(60) == 0

    def trade(self, start: float, events: int = 500, users: int = 15) -> None:
        """Clicks and purchases from `start` on, out of order, some late for good, some twice, some unreadable."""
        rng, at = self._rng, start
        while events > 0:
            at += rng.expovariate(2)
            user = rng.randrange(users)
            kinds = [rng.choice(["view", "view", "click", "buy", "buy", "ping"]) for _ in range(rng.randint(1, 4))]
            delay = rng.choice([0, 0, 0, 1, 3, 5, 40, 300])
            items = [self._event(kind, at - delay + number, user) for number, kind in enumerate(kinds)]
            topic = rng.choice([self.app, self.app, self.mixed])
            for kind in kinds:
                if kind == "buy" and rng.random() < 0.6:
                    self._pay(at - delay + rng.uniform(-6, 6), user, items if topic == self.mixed else None)
            events -= len(items)
            whole: Any = {"client": f"c{user}", "sent": round(at, 3), "events": items, "amount": None}
            if rng.random() < 0.03:
                whole = rng.choice([None, b"{", {"client": 1}, {"events": [1, {"kind": "view"}]}, [], b"\xff"])
            for _ in range(2 if rng.random() < 0.05 else 1):
                key, headers = json.dumps({"id": f"k{user}"}).encode(), [("user", b"h%d" % user)]
                self.write(topic, rng.randrange(PARTITIONS), whole, key, headers)
        self.flush()

    def _event(self, kind: str, at: float, user: int) -> dict[str, Any]:
        rng = self._rng
        event: dict[str, Any] = {"kind": kind, "at": rng.choice([round(at, 3), round(at * 1_000), str(round(at, 6))])}
        if rng.random() < 0.7:
            event["uid"] = rng.choice([user, str(user), f"u {user} é"])
        if rng.random() < 0.8:
            event["page"] = rng.randrange(3)
        if kind == "buy" and rng.random() < 0.3:
            event["total"] = rng.choice(["12.50", 7, "free"])
        return event

    def _pay(self, at: float, user: int, items: list[dict[str, Any]] | None) -> None:
        row = {"customer": str(user), "paid_at": round(at, 3), "cents": self._rng.randrange(9_999), "page": 1}
        if items is not None and self._rng.random() < 0.7:
            items.append(row)
        else:
            self.write(self.paid, self._rng.randrange(PARTITIONS), row)


def test_a_mapped_job_that_is_killed_writes_the_batch_answer_and_explain_agrees(
    mapped, programs, tmp_path, monkeypatch, capsys
):
    shop = Shop(mapped)
    shop.trade(NOON)
    store = str(tmp_path / "recovery")
    job = programs.start("dataflow", "-r", store, "-s", "0.2", **environment(mapped))
    wait_until(lambda: count_visits(mapped) > 50, "the job writes", job)
    job.kill()
    job.wait()
    shop.trade(NOON + 3_600)
    status, lines = programs.run("dataflow", "-r", store, **environment(mapped, stop_at_end="1"))
    assert status == 0, lines
    assert_right(mapped)

    for name, value in environment(mapped, stop_at_end="1").items():
        monkeypatch.setenv(name, value)
    users = {message.key().decode() for message in Topics(mapped).read(mapped.topic_visits)}
    assert {user[0] for user in users} > {"c", "u", "1"}

    def explain(*arguments: str) -> dict[str, Any]:
        assert explain_command.main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    rows = []
    for user in sorted(users)[::4]:
        report = explain("--user", user)
        assert report["differences"] == []
        rows += [event for session in report["sessions"] for event in session["events"]]
    assert {row["message"].rpartition("/")[2] for row in rows} >= {"0", "1", "2"}  # the parts
    assert {row["message"].partition("/")[0] for row in rows} == {shop.app, shop.mixed}
    addresses = {row["message"] for row in rows}
    whole = next(at[:-2] for at in addresses if at.endswith("/0") and f"{at[:-2]}/1" in addresses)
    assert explain_command.main(["--message", whole]) == 1
    assert f"{whole}: say which event of the message: {whole}/0, {whole}/1" in capsys.readouterr().err
    report = explain("--message", rows[0]["message"])
    (session,) = report["sessions"]
    assert explain("--session", session["session_id"])["sessions"] == [session]


class Tool:
    """`redrive` in this process."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self._capsys = capsys
        monkeypatch.setattr(redrive_command, "install_error_handler", lambda: None)
        monkeypatch.setenv("COLUMNS", "300")
        for name, value in environment(settings).items():
            monkeypatch.setenv(name, value)

    def __call__(self, *arguments: str) -> tuple[int, list[str]]:
        status = redrive_command.main(arguments)
        said = self._capsys.readouterr()
        return status, (said.out + said.err).splitlines()


def put_back(settings: Settings) -> list[Message]:
    topics = Topics(settings)
    rows = (message for topic in settings.inputs for message in topics.read(topic))
    return [row for row in rows if REDRIVEN in dict(row.headers() or ())]


def test_rejected_events_of_several_are_put_back_alone_with_key_and_headers(
    mapped, programs, tmp_path, monkeypatch, capsys
):
    shop = Shop(mapped)
    key, headers = b'{"id":"k1"}', [("user", b"h1")]
    view, late = {"kind": "view", "at": NOON + 100}, {"kind": "view", "at": NOON, "uid": None}
    shop.write(shop.mixed, 2, {"events": [view, late, {"kind": "buy"}]}, key, headers)
    shop.write(shop.paid, 1, {"paid_at": NOON + 100, "cents": "7 EUR"}, key)
    shop.flush()
    status, lines = programs.run("bytewax.run", "dataflow:flow", **environment(mapped, stop_at_end="1"))
    assert status == 0, lines
    assert differences(mapped, Topics(mapped)) == []

    redrive = Tool(mapped, monkeypatch, capsys)
    assert redrive("--send", "--now") == (
        1,
        ["visits: --now sets the field `timestamp` of the default shape; with a mapping, set it with --repair"],
    )
    assert redrive("late-events", "--send", "--even-if-late") == (0, ["put back: 1"])
    (row,) = put_back(mapped)
    assert (row.topic(), row.partition(), row.key()) == (shop.mixed, 2, key)
    assert dict(row.headers())["user"] == b"h1"
    assert json.loads(row.value()) == {"events": [late]}

    repair = f"""sed 's/"buy"/"buy","at":{NOON + 100}/; s/ EUR//'"""
    assert redrive("dead-letters", "--repair", repair, "--send") == (0, ["put back: 2"])
    assert [(row.topic(), row.partition(), row.key(), json.loads(row.value())) for row in put_back(mapped)[1:]] == [
        (shop.mixed, 2, key, {"events": [{"kind": "buy", "at": NOON + 100}]}),
        (shop.paid, 1, key, {"paid_at": NOON + 100, "cents": "7"}),
    ]


def test_a_dead_letter_that_holds_more_than_its_event_is_not_put_back(mapped, programs, tmp_path, monkeypatch, capsys):
    (tmp_path / "lines_of_ones_own.py").write_text(
        "def read(message):\n"
        "    lines = message.value().decode().splitlines()\n"
        "    return {'events': [dict(pair.split('=') for pair in line.split(';')) for line in lines]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    file = tmp_path / "own.toml"
    text = (tmp_path / "mapping.toml").read_text()
    file.write_text(text.replace("[events]\n", '[events]\ndecode = "lines_of_ones_own:read"\n'))
    own = with_mapping(mapped, file)
    shop = Shop(own)
    shop.write(shop.app, 0, b"uid=1;kind=view;at=1710331200\nuid=1;kind=view")
    shop.write(shop.app, 0, b"nonsense")
    shop.flush()
    run = "bytewax.run", "dataflow:flow"
    status, lines = programs.run(*run, **environment(own, stop_at_end="1"), PYTHONPATH=str(tmp_path))
    assert status == 0, lines
    assert differences(own, Topics(own)) == []
    redrive = Tool(own, monkeypatch, capsys)
    status, lines = redrive("--send")
    assert status == 0
    assert sorted(line.partition(": ")[2] for line in lines[:-1]) == [
        "not alone in its message: its value is the whole message, whose other events would be read a second time",
        "still unreadable: ValueError: dictionary update sequence element #0 has length 1; 2 is required",
    ]
    assert lines[-1].startswith("put back: 0; ")
