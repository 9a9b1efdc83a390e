"""Which ends are sure: no older record can arrive after them."""

from types import SimpleNamespace

import pytest

from dataflow.kafka import end_offset_poller as module
from dataflow.kafka.end_offset_poller import ConfirmedEnd, EndOffsetPoller
from dataflow.kafka.offsets import EndOffset

PARTITION, SOURCE = ("clicks", 0), "clicks/0"
SECOND = 1_000_000
STARTED = 1_700_000_000 * SECOND
GRACE = 20 * SECOND


class Connection:
    def __init__(self) -> None:
        self.properties: dict[str, str] = {}
        self.answers = 0

    def record_answer(self) -> None:
        self.answers += 1

    def record_no_answer(self) -> None:
        pass


class Cluster:
    """One partition: its end, whether brokers answer, and whether all replicas have all rows."""

    def __init__(self, monkeypatch) -> None:
        self.now = STARTED
        self.end = 0
        self.answers = self.is_replicated = True
        self.in_sync = 3
        self.connection = Connection()
        monkeypatch.setattr(module, "known_end_offsets", self._known_end_offsets)
        monkeypatch.setattr(module, "ReplicationProbe", lambda connection, group: self)
        monkeypatch.setattr(module, "InSyncReplicas", lambda admin, topics: self)
        monkeypatch.setattr(module, "Consumer", lambda properties: None)
        self.poller = EndOffsetPoller(self, self.connection, {"clicks": 1}, "group", GRACE, clock=lambda: self.now)
        monkeypatch.setattr(self.poller, "_thread", "none: the test polls")
        self.poller.watch(PARTITION)

    def _known_end_offsets(self, admin, partition_ids, timeout_s):
        return {each: EndOffset(self.end, 0) for each in partition_ids} if self.answers else {}

    def list_topics(self, topic, timeout):
        partitions = {0: SimpleNamespace(isrs=[1, 2, 3][: self.in_sync])}
        return SimpleNamespace(topics={topic: SimpleNamespace(topic=topic, error=None, partitions=partitions)})

    def unwritable(self, topic):
        return {PARTITION} if len(topic.partitions[0].isrs) < 2 else set()

    def fully_replicated(self, ends):
        return set(ends) if self.is_replicated else set()

    def poll(self, seconds: float) -> ConfirmedEnd | None:
        """The end that is known after a poll so many seconds after the start."""
        self.now = STARTED + round(seconds * SECOND)
        self.poller._look_at_topics()
        self.poller._poll([PARTITION])
        return self.poller.end(SOURCE)


@pytest.fixture
def cluster(monkeypatch) -> Cluster:
    return Cluster(monkeypatch)


def poll_every_second(cluster: Cluster, begin: int, end: int) -> list[bool]:
    """Whether each end was sure."""
    return [cluster.poll(second).sure for second in range(begin, end)]


def test_an_end_is_known_with_the_time_of_the_question(cluster):
    cluster.end = 7
    assert cluster.poll(1) == ConfirmedEnd(STARTED + 1 * SECOND, 7, False)


def test_no_end_is_sure_in_the_grace_period_after_a_start(cluster):
    assert poll_every_second(cluster, 0, 22) == [False] * 20 + [True] * 2


def test_a_partition_that_takes_no_writes_is_like_one_in_an_outage(cluster):
    poll_every_second(cluster, 0, 31)
    cluster.in_sync = 1
    assert poll_every_second(cluster, 31, 91) == [False] * 60
    cluster.in_sync = 2
    assert poll_every_second(cluster, 91, 113) == [False] * 20 + [True] * 2


def test_a_partition_that_takes_rows_although_few_replicas_are_in_sync_has_no_outage(cluster):
    poll_every_second(cluster, 0, 31)
    cluster.in_sync = 1
    for second in range(31, 41):
        cluster.end += 1  # of a writer that does not ask for acknowledgements of all replicas
        assert not cluster.poll(second).sure
    cluster.in_sync = 3
    assert cluster.poll(42).sure


def test_a_probe_that_never_has_an_answer_does_not_stop_time_for_ever(cluster):
    cluster.is_replicated = False
    assert poll_every_second(cluster, 0, 45) == [False] * 45
    sure = poll_every_second(cluster, 45, 120)
    assert sure == [False] * 20 + [True] * 55, "the end has stood for 45 s; then the grace, as after an outage"


@pytest.mark.parametrize("interruption", ["a row", "an outage"])
def test_an_end_that_has_not_stood_for_45_s_needs_the_probe(cluster, interruption):
    poll_every_second(cluster, 0, 31)
    cluster.is_replicated = False
    poll_every_second(cluster, 31, 60)
    if interruption == "a row":
        cluster.end += 1
        cluster.poll(60)
    else:
        cluster.answers = False
        poll_every_second(cluster, 60, 65)
        cluster.answers = True
    assert not any(poll_every_second(cluster, 65, 105))


def test_an_end_below_rows_that_consumers_cannot_see_is_not_sure(cluster):
    poll_every_second(cluster, 0, 31)
    cluster.is_replicated = False
    assert not cluster.poll(31).sure
    cluster.is_replicated = True
    assert cluster.poll(32).sure


def test_an_unanswered_question_leaves_the_last_end(cluster):
    before = cluster.poll(30)
    cluster.answers = False
    assert cluster.poll(31) == before
    assert cluster.connection.answers == 1


def test_after_an_outage_of_more_than_3_s_no_end_is_sure_for_the_grace_period(cluster):
    poll_every_second(cluster, 0, 31)
    assert poll_every_second(cluster, 34, 56) == [False] * 20 + [True] * 2
    assert cluster.poller.back_at(SOURCE) == STARTED + 54 * SECOND


def test_a_pause_of_3_s_is_no_outage(cluster):
    poll_every_second(cluster, 0, 31)
    assert cluster.poll(33).sure


def test_a_partition_that_takes_rows_is_reachable_although_replicas_lag(cluster):
    poll_every_second(cluster, 0, 31)
    cluster.is_replicated = False
    for second in range(31, 40):
        cluster.end += 1
        assert not cluster.poll(second).sure
    cluster.is_replicated = True
    assert cluster.poll(40).sure


def test_a_partition_that_takes_no_rows_while_replicas_lag_counts_as_out_of_reach(cluster):
    poll_every_second(cluster, 0, 31)
    cluster.is_replicated = False
    poll_every_second(cluster, 31, 40)
    cluster.is_replicated = True
    assert not cluster.poll(40).sure


def test_sources_are_all_partitions_of_all_topics(cluster):
    assert cluster.poller.sources == (SOURCE,)
    assert cluster.poller.count("clicks") == 1
