"""The live page of a running job, in a real browser where there is one."""

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from support.browser import Browser, unavailable
from support.jobs import count_visits, wait_until
from support.programs import environment, free_port

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings

pytestmark = pytest.mark.parametrize("kafka", ["embedded"], indirect=True)  # nothing here depends on the broker

QUICK = {"session_gap": 4, "match_window": 2, "allowed_lateness": 1}
EVIL = "<img src=x onerror=document.title='gotcha'>"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if reason := unavailable():
        if os.environ.get("BROWSER") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    with Browser(tmp_path / "browser") as started:
        yield started


@pytest.fixture
def settings(topics: Settings, request: pytest.FixtureRequest) -> Settings:
    return topics.model_copy(update=QUICK | getattr(request, "param", {}))


class Shop:
    """Writes rows of this moment, or of so many seconds ago; each user has a partition."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = Producer({"bootstrap.servers": settings.brokers, "log_level": 0})

    def click(self, user: int, event_type: str = "page-view", ago: float = 0) -> None:
        row = {"event_type": event_type, "user_id": user, "page_id": 1, "timestamp": time.time() - ago}
        self.write(self._settings.topic_user_events, user, json.dumps(row).encode())

    def pay(self, user: int, amount: float) -> None:
        row = {"amount": amount, "user_id": user, "page_id": 1, "timestamp": time.time()}
        self.write(self._settings.topic_purchases, user, json.dumps(row).encode())

    def write(self, topic: str, user: int, value: bytes) -> None:
        self._producer.produce(topic, value, b"%d" % user, user % 8)
        self._producer.flush(20)


@pytest.fixture
def job(settings: Settings, programs, tmp_path: Path) -> str:
    """A job whose page is at this address."""
    port = free_port()
    programs.start("dataflow", "-r", str(tmp_path / "store"), "-s", "1", **environment(settings, page_port=str(port)))
    url = f"http://127.0.0.1:{port}/"
    wait_until(lambda: _answers(url), "the page answers")
    return url


def _answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=20).status == 200
    except OSError:
        return False


def _first_news(url: str) -> dict:
    """The first message of a stream. A server with too many streams is asked again: those of before end within 1 s."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=20) as stream:
                return json.loads(stream.readline().removeprefix(b"data: "))
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def test_page_shows_a_followed_user_whose_session_grows_and_closes(kafka, settings, job, browser):
    shop = Shop(settings)
    browser.open(job)
    browser.until(lambda: browser.text("#state") == "live")
    assert browser.text("#waits") == "No partition has a row yet: event time has not begun."
    assert browser.ask("document.querySelectorAll('#partitions tbody tr').length") == 16
    browser.until(lambda: browser.text("#process") == "one process, 8 shards")

    browser.ask("document.querySelector('#user').value = '7'")
    browser.ask("document.querySelector('#choose button').click()")
    browser.until(lambda: "The user has no open session" in browser.text("#lane-note"))
    shop.click(7)
    shop.click(7, "purchase")
    browser.until(lambda: "open, closes when" in browser.text("#spans"))
    assert browser.ask("document.querySelectorAll('#lane circle').length") == 2
    identity = browser.text("#spans .id")
    assert len(identity) == 32
    shop.pay(7, 12.5)
    browser.until(lambda: "amount 12.5" in browser.text("#lane"))
    assert browser.ask("document.querySelectorAll('#lane .met.taken').length") == 1
    browser.until(lambda: f"{identity}\t" in browser.text("#spans") and "open, closes" not in browser.text("#spans"))
    assert browser.ask("document.querySelectorAll('#lane .span.closed').length") == 1
    browser.until(lambda: f"2 {settings.topic_user_events}" in browser.text("#in-topics"))
    browser.until(lambda: "Nothing holds the watermark back" in browser.text("#waits"))
    browser.until(lambda: browser.text("#snapshot").endswith(" s ago"))
    assert browser.complaints == []


def test_page_lists_late_dead_and_suspicious_rows_with_reasons_as_plain_text(kafka, settings, job, browser):
    shop = Shop(settings)
    browser.open(f"{job}?user=7")
    browser.until(lambda: browser.text("#state") == "live")
    shop.click(7, EVIL)
    shop.click(7, ago=100)
    shop.write(settings.topic_user_events, 7, f'{{"event_type":"{EVIL}","user_id":"7"}}'.encode())
    browser.until(lambda: "s below the highest time of its partition" in browser.text("#late"))
    browser.until(lambda: "Expected `int`, got `str` - at `$.user_id`" in browser.text("#dead_letters"))
    assert EVIL in browser.text("#dead_letters")
    browser.until(lambda: "too few page views" in browser.text("#suspicious"))
    browser.until(lambda: browser.ask("document.querySelectorAll('#lane circle').length") == 2)
    assert EVIL[:40] in browser.ask("document.querySelector('#lane').textContent")
    assert browser.ask("document.querySelectorAll('img').length") == 0
    assert browser.ask("document.title") == "Visits"
    assert browser.ask("document.querySelector('#late button').innerText") == "7"
    assert browser.complaints == []


@pytest.mark.parametrize("settings", [{"outage_grace": 6.0}], indirect=True, ids=["with a grace"])
def test_page_names_the_partition_that_blocks_the_watermark_and_why(kafka: EmbeddedKafka, settings, job, browser):
    shop, held = Shop(settings), f"{settings.topic_user_events}/3"
    for topic in settings.inputs:
        for partition in range(8):
            kafka.set_leader(topic, partition, 1)
    kafka.set_leader(settings.topic_user_events, 3, 3)
    browser.open(job)
    browser.until(lambda: browser.text("#state") == "live")
    for user in range(8):
        shop.click(user)
    browser.until(lambda: "Nothing holds the watermark back" in browser.text("#waits"))
    # the first row of an output partition needs all brokers: without one, the worker would wait, and with it all partitions
    browser.until(lambda: count_visits(settings) == 8)
    kafka.stop_brokers(3)
    browser.until(
        lambda: f"The watermark waits for {held}, which may have more rows by now, but" in browser.text("#waits")
    )
    assert "its leader does not answer, or they are not replicated yet (last seen at its end" in browser.text("#waits")
    assert browser.ask("document.querySelector('tr.holds').innerText").startswith(held)
    kafka.stop_brokers()
    browser.until(lambda: browser.text("#state") == "Kafka is away")
    assert "no Kafka broker can be reached" in browser.text("#waits")
    kafka.start_brokers()
    browser.until(lambda: "gives its producers" in browser.text("#waits"))
    browser.until(lambda: "Nothing holds the watermark back" in browser.text("#waits"))
    assert browser.text("#state") == "live"


def test_page_says_that_the_job_is_gone(kafka, settings, job, browser, programs):
    browser.open(job)
    browser.until(lambda: browser.text("#state") == "live")
    programs.kill_all()
    browser.until(lambda: browser.text("#state") == "not connected")


def test_each_of_two_processes_shows_its_own_shards_and_partitions(kafka, settings, programs, tmp_path):
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    ports = [free_port(), free_port()]
    store = ["-r", str(tmp_path / "store"), "-a", addresses]
    for number, port in enumerate(ports):
        programs.start("dataflow", "-i", str(number), *store, **environment(settings, page_port=str(port)))
    urls = [f"http://127.0.0.1:{port}/events" for port in ports]

    def shards() -> list[list[int]]:
        return [_first_news(url)["picture"]["shards"] for url in urls]

    wait_until(lambda: all(map(_answers, (f"http://127.0.0.1:{port}/" for port in ports))), "both pages answer")
    wait_until(lambda: sum(map(len, shards())) == 8, "every shard is on a page")
    shop = Shop(settings)
    for user in range(8):
        shop.click(user)
        shop.pay(user, 1)
    first, second = shards()
    assert sorted(first + second) == list(range(8))

    def read() -> int:
        return sum(each["offset"] == 1 for url in urls for each in _first_news(url)["picture"]["partitions"])

    wait_until(lambda: read() == 16, "every partition has been read")
    both = [_first_news(url + "?user=7") for url in urls]
    assert [news["picture"]["process"] for news in both] == [0, 1]
    assert {news["picture"]["processes"] for news in both} == {2}
    assert sorted(news["followed"]["here"] for news in both) == [False, True]
    for partitions in zip(*(news["picture"]["partitions"] for news in both), strict=True):
        assert sorted(each["offset"] is None for each in partitions) == [False, True]  # one of them reads it
        assert all(each["mark"] is not None for each in partitions)  # and both know how far in time it is
