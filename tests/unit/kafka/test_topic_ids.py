"""A topic that was deleted and created again is noticed by its id."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from dataflow.kafka import topic_ids as module
from dataflow.kafka.topic_ids import TopicWatch, topic_ids
from dataflow.streaming.errors import START_OVER, UserError


class Admin:
    """Topics by name, each with its id, or with the error that is the answer."""

    def __init__(self, **topics: str | int) -> None:
        self.topics = topics
        self.cluster_id = "a real one"
        self.questions = 0

    def list_topics(self, timeout):
        return SimpleNamespace(cluster_id=self.cluster_id)

    def describe_topics(self, collection, request_timeout):
        self.questions += 1
        answers = {}
        for name in self.topics:
            answers[name] = answer = Future()
            id = self.topics[name]
            if isinstance(id, int):
                answer.set_exception(KafkaException(KafkaError(id)))
            else:
                answer.set_result(SimpleNamespace(topic_id=id))
        return answers


@pytest.fixture(autouse=True)
def time(monkeypatch):
    """Time passes only while something sleeps."""
    time = SimpleNamespace(now=100.0)
    time.monotonic = lambda: time.now
    time.sleep = lambda seconds: setattr(time, "now", time.now + seconds)
    monkeypatch.setattr(module, "time", time)
    monkeypatch.setattr(module, "TopicCollection", list)
    return time


def test_ids_are_known_by_name():
    assert topic_ids(Admin(visits="one", clicks="two"), ["visits", "clicks"]) == {"visits": "one", "clicks": "two"}


def test_brokers_without_ids_are_gone_without_them():
    assert topic_ids(Admin(visits="AAAAAAAAAAAAAAAAAAAAAA"), ["visits"]) == {}


def test_librdkafkas_mock_is_not_asked():
    admin = Admin(visits="one")
    admin.cluster_id = "mockCluster1234"
    assert topic_ids(admin, ["visits"]) == {}
    assert not admin.questions


def test_brokers_that_do_not_answer_are_given_20_s_and_it_is_said(caplog, time):
    assert topic_ids(Admin(visits=KafkaError._TIMED_OUT), ["visits"]) == {}
    assert 120 <= time.now < 121
    assert "one that is created again will not be noticed" in caplog.text


def test_a_topic_that_was_created_again_ends_the_job():
    watch = TopicWatch(Admin(visits="two"), {"visits": "one"}, {"visits"})
    with pytest.raises(UserError, match=r"^topic visits was created again while the job ran; start over"):
        watch.check()


@pytest.mark.parametrize(
    ("outputs", "line"),
    [
        (set(), "topic visits is gone: was it deleted? Another topic of its name has other rows, so create it, and "),
        ({"visits"}, "output topic visits is gone: was it deleted? Its rows are lost with it, and the recovery store "),
    ],
    ids=["input", "output"],
)
def test_a_topic_that_is_gone_for_5_s_ends_the_job_and_the_line_says_what_helps(time, outputs, line):
    watch = TopicWatch(Admin(visits=KafkaError.UNKNOWN_TOPIC_OR_PART), {"visits": "one"}, outputs)
    watch.check()
    time.sleep(5)
    watch.check()
    time.sleep(1)
    with pytest.raises(UserError) as gone:
        watch.check()
    assert str(gone.value).startswith(line)
    assert str(gone.value).endswith(START_OVER)


def test_a_topic_that_a_broker_does_not_know_for_a_moment_is_not_gone(time):
    admin = Admin(visits="one")
    watch = TopicWatch(admin, {"visits": "one"}, {"visits"})
    for answer in (KafkaError.UNKNOWN_TOPIC_OR_PART, "one") * 5:
        admin.topics["visits"] = answer
        time.sleep(4)
        watch.check()


@pytest.mark.parametrize("error", [KafkaError._TIMED_OUT, KafkaError._TRANSPORT])
def test_an_outage_says_nothing_about_topics(time, error):
    watch = TopicWatch(Admin(visits=error), {"visits": "one"}, {"visits"})
    for _ in range(5):
        time.sleep(10)
        watch.check()
