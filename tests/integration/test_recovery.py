"""A restart of the job: leases, rows above the high watermark, and topics or settings that have changed."""

import json
import random
import resource
import signal
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from support.jobs import LIVE, count_rows, count_visits, wait_until, wait_until_right
from support.programs import Programs, end_of, environment
from support.real_kafka import RealKafka

from dataflow.kafka.client import Connection, connect
from dataflow.kafka.deduplication import OutputDeduplicator, record_digest
from dataflow.kafka.job_metadata import JobMetadata, LeaseRecord, MetadataEntry, Note, read_entries
from dataflow.kafka.lease import Lease
from dataflow.kafka.offsets import PartitionId, end_offsets, retry_until_answered
from dataflow.kafka.replication_probe import ReplicationProbe
from dataflow.observability.clock import JobClock
from dataflow.runtime.recovery_store import resume_epoch
from dataflow.runtime.settings import Settings

REAL = pytest.mark.parametrize(
    "kafka", [pytest.param("real", marks=[pytest.mark.kafka, pytest.mark.slow])], indirect=True
)
TRAFFIC = "producer", "--rate", "100", "--users", "40"


@pytest.fixture
def shop(topics: Settings) -> Settings:
    return topics.model_copy(update=LIVE)


def start_job(programs: Programs, shop: Settings, store: Path, *arguments: str, **settings: str):
    return programs.start("dataflow", "-r", str(store), "-s", "1", *arguments, **environment(shop, **settings))


@pytest.mark.parametrize(("grace", "late"), [("10", 0), ("0", 2)], ids=["in its grace", "and it has none"])
def test_rows_written_in_the_grace_after_an_outage_are_not_late(
    shop: Settings, programs: Programs, tmp_path: Path, grace: str, late: int
) -> None:
    writer = Producer({"bootstrap.servers": shop.brokers, "log_level": 0})
    began = time.time() - 60  # as if the brokers had been away since then

    def write(seconds: float) -> None:
        row = {"event_type": "page-view", "user_id": 1, "page_id": 1, "timestamp": began + seconds}
        writer.produce(shop.topic_user_events, json.dumps(row), "1", 0)
        assert writer.flush(60) == 0

    write(0)
    job = start_job(programs, shop, tmp_path / "recovery", outage_grace=grace)
    wait_until(lambda: "caught up" in job.log.read_text(), "the job has read everything")
    if late:
        wait_until(lambda: count_visits(shop) == 1, "nothing holds the session back")
    write(1.5)
    write(1)
    wait_until(lambda: count_visits(shop) + count_rows(shop, shop.topic_late_events) == 3, "all is out")
    assert count_rows(shop, shop.topic_late_events) == late
    job.terminate()
    assert end_of(job)[0] == 0


def test_a_job_from_latest_killed_before_a_snapshot_starts_at_the_same_rows(
    shop: Settings, programs: Programs, tmp_path: Path
) -> None:
    writer = Producer({"bootstrap.servers": shop.brokers, "log_level": 0})

    def write(user: int) -> None:
        row = {"event_type": "page-view", "user_id": user, "page_id": 1, "timestamp": time.time()}
        writer.produce(shop.topic_user_events, json.dumps(row), str(user))
        assert writer.flush(60) == 0

    def start():
        job = start_job(programs, shop, tmp_path / "recovery", "-s", "600", start="latest", outage_grace="0")
        wait_until(lambda: "caught up" in job.log.read_text(), "the job has read everything")
        return job

    write(1)
    job = start()
    for user in 2, 3:
        write(user)
        job.kill()
        job.wait()
        job = start()
    write(4)
    wait_until(lambda: count_visits(shop) == 3, "all that came since it began is out, and nothing from before")
    job.terminate()
    assert end_of(job)[0] == 0


def test_a_second_copy_of_a_running_job_is_refused(shop: Settings, programs: Programs, tmp_path: Path) -> None:
    first = start_job(programs, shop, tmp_path / "recovery")
    traffic = programs.start(*TRAFFIC, **environment(shop))
    wait_until(lambda: count_visits(shop) > 20, "the job writes")
    for store in ("recovery", "of its own"):
        status, lines = end_of(start_job(programs, shop, tmp_path / store))
        assert status == 1
        assert "another copy of job" in lines[-1]
    traffic.terminate()
    assert traffic.wait() == 0
    wait_until_right(shop)
    first.terminate()
    assert end_of(first)[0] == 0


def test_a_job_takes_over_an_expired_lease_and_stops_when_it_loses_it(
    shop: Settings, programs: Programs, tmp_path: Path
) -> None:
    metadata, begins = metadata_of(shop)
    first = min(begins)
    elsewhere = LeaseRecord("another start", "another-host", pid="1", renewals=77)
    metadata.write({first: MetadataEntry(begins[first].offset, Note(lease=elsewhere))})  # nobody renews it
    job = start_job(programs, shop, tmp_path / "recovery")
    traffic = programs.start(*TRAFFIC, **environment(shop))
    wait_until(lambda: count_visits(shop) > 20, "the job has taken over and writes")

    def renewed() -> bool:  # again and again, as a process does that is alive: once might fall between two looks at it
        metadata.write({first: MetadataEntry(begins[first].offset, Note(lease=elsewhere))})
        return job.poll() is not None

    wait_until(renewed, "the first has stopped")
    status, lines = end_of(job)
    assert status == 1
    assert "has taken over (process 1 on another-host), so this one stops" in lines[-1]
    traffic.terminate()


def test_an_expired_lease_blocks_writes_until_it_is_renewed(shop: Settings, kafka) -> None:
    metadata, begins = metadata_of(shop)
    lease = Lease(metadata, begins, "a job", JobClock())
    lease.take()
    lease.wait_until_held()
    kafka.stop_brokers()
    wait_until(lambda: time.monotonic() > lease.held_until, "the lease has run out")
    kafka.start_brokers()
    lease.wait_until_held()
    lease.release()
    assert metadata.read([min(begins)])[min(begins)].note.lease is None


def metadata_of(shop: Settings) -> tuple[JobMetadata, dict[PartitionId, MetadataEntry]]:
    connection = Connection(shop.client)
    metadata = JobMetadata(connection, shop.group + "-output")
    return metadata, read_entries(metadata, connect(connection), dict.fromkeys(shop.outputs, 8), {})


def deduplicator_of(shop: Settings) -> OutputDeduplicator:
    connection = Connection(shop.client)
    metadata, entries = metadata_of(shop)
    begins = {partition_id: entry.offset for partition_id, entry in entries.items()}
    return OutputDeduplicator(connect(connection), connection, metadata, begins, shop.group)


@REAL
def test_rows_above_the_high_watermark_are_found_with_a_replica_away(shop: Settings, real_kafka: RealKafka) -> None:
    metadata_of(shop)  # the job has begun
    partition, probe = (shop.topic_visits, 0), ReplicationProbe(Connection(shop.client), shop.group)
    killed = Producer({"bootstrap.servers": shop.brokers, "enable.idempotence": True, "log_level": 0})
    killed.produce(shop.topic_visits, b"first", b"k", 0)
    assert killed.flush(60) == 0  # it knows the leader and need ask nobody, so its next row is there at once
    wait_until(lambda: probe.fully_replicated({partition: 1}) == {partition}, "consumers see all rows")
    led = leader_of(shop, shop.topic_visits)
    real_kafka.pause_brokers(next(broker for broker in (1, 2, 3) if broker != led))
    killed.produce(shop.topic_visits, b"v", b"k", 0)
    wait_until(
        lambda: not killed.poll(0) and not probe.fully_replicated({partition: 1}),
        "the leader has a row that consumers do not see",
    )
    assert [*deduplicator_of(shop).rows(partition, 1)] == [(1, record_digest(b"k", b"v", None))]


@REAL
def test_probe_knows_of_rows_above_the_high_watermark_until_they_show(shop: Settings, real_kafka: RealKafka) -> None:
    connection, partition = Connection(shop.client), (f"led-by-one-{shop.topic_visits}", 0)
    admin = connect(connection)
    for made in real_kafka.admin.create_topics([NewTopic(partition[0], 1, replica_assignment=[[1, 2, 3]])]).values():
        made.result()
    writer = Producer({"bootstrap.servers": shop.brokers, "enable.idempotence": True, "log_level": 0})
    writer.produce(partition[0], b"first", b"k", 0)
    assert writer.flush(60) == 0
    probe = ReplicationProbe(connection, shop.group)
    wait_until(lambda: probe.fully_replicated({partition: 1}) == {partition}, "consumers see all rows")
    real_kafka.pause_brokers(3)
    writer.produce(partition[0], b"second", b"k", 0)
    wait_until(
        lambda: not writer.poll(0) and not probe.fully_replicated({partition: 1}), "the probe knows of the second row"
    )
    known = retry_until_answered(lambda: end_offsets(admin, [partition]), lambda: None)[partition].offset
    assert known == 1 or writer.flush(0) == 0  # consumers see one row, or replication has gone on meanwhile
    assert writer.flush(60) == 0
    wait_until(lambda: probe.fully_replicated({partition: 2}) == {partition}, "consumers see both rows")


def leader_of(shop: Settings, topic: str) -> int:
    admin = AdminClient({"bootstrap.servers": shop.brokers, "log_level": 0})
    return admin.list_topics(topic, timeout=30).topics[topic].partitions[0].leader


@REAL
def test_keys_keep_their_partitions_when_an_output_topic_grows(
    shop: Settings, programs: Programs, tmp_path: Path
) -> None:
    traffic = programs.start(*TRAFFIC, **environment(shop))
    job = start_job(programs, shop, tmp_path / "recovery")
    wait_until(lambda: count_visits(shop) > 50, "the job writes")
    admin = AdminClient({"bootstrap.servers": shop.brokers, "log_level": 0})
    for grown in admin.create_partitions([NewPartitions(topic, 11) for topic in shop.outputs]).values():
        grown.result()
    job.kill()
    job.wait()
    job = start_job(programs, shop, tmp_path / "recovery")
    before = count_visits(shop)
    wait_until(lambda: count_visits(shop) > before + 50, "the job goes on")
    traffic.terminate()
    assert traffic.wait() == 0
    wait_until_right(shop)
    assert count_rows(shop, shop.topic_visits, first_partition=8) == 0
    assert (
        f"{shop.topic_visits} has 11 partitions; the job goes on with the 8 that it began with" in job.log.read_text()
    )


@REAL
def test_rows_removed_by_retention_are_not_written_again(shop: Settings, programs: Programs, tmp_path: Path) -> None:
    traffic = programs.start(*TRAFFIC, **environment(shop))
    job = start_job(programs, shop, tmp_path / "recovery")
    wait_until(lambda: count_visits(shop) > 100, "the job writes")
    traffic.terminate()
    assert traffic.wait() == 0
    wait_until_right(shop)
    # a replay of rows after the last snapshot would look for them in the output, where they are gone
    epoch = resume_epoch(tmp_path / "recovery") or 0
    wait_until(lambda: (resume_epoch(tmp_path / "recovery") or 0) > epoch + 2, "a snapshot holds all of this", job)
    job.send_signal(signal.SIGKILL)
    job.wait()
    ends = {number: end for number, end in ends_in(shop).items() if end}
    admin = AdminClient({"bootstrap.servers": shop.brokers, "log_level": 0})
    removed = [TopicPartition(shop.topic_visits, number, end) for number, end in ends.items()]
    for deleted in admin.delete_records(removed).values():
        deleted.result()
    traffic = programs.start(*TRAFFIC, "--seed", "3", "--events", "300", **environment(shop))
    job = start_job(programs, shop, tmp_path / "recovery")
    assert traffic.wait() == 0
    wait_until(lambda: sum(ends_in(shop).values()) >= sum(ends.values()) + 300, "the new rows are out")
    job.terminate()
    assert end_of(job)[0] == 0
    assert sum(ends_in(shop).values()) == sum(ends.values()) + 300


def ends_in(shop: Settings) -> dict[int, int]:
    written = deduplicator_of(shop)
    return {number: end for (_, number), end in written.ends((shop.topic_visits, each) for each in range(8)).items()}


@REAL
def test_a_row_too_large_for_its_topic_stops_the_job_and_nothing_is_lost(
    shop: Settings, programs: Programs, tmp_path: Path
) -> None:
    admin = AdminClient({"bootstrap.servers": shop.brokers, "log_level": 0})
    set_largest_row(admin, shop.topic_visits, 100_000)
    traffic = programs.start(*TRAFFIC, "--events", "300", **environment(shop))
    assert traffic.wait() == 0
    large = {
        "event_type": "click",
        "user_id": 1,
        "page_id": 1,
        "timestamp": time.time(),
        "referrer": random.randbytes(200_000).hex(),
    }
    producer = Producer({"bootstrap.servers": shop.brokers, "log_level": 0})
    producer.produce(shop.topic_user_events, json.dumps(large), "1")
    assert producer.flush(30) == 0
    status, lines = end_of(start_job(programs, shop, tmp_path / "recovery"))
    assert status == 1
    assert "Kafka refuses a row: " in lines[-1]
    assert lines[-1].endswith("raise max.message.bytes of the topic and start again")
    set_largest_row(admin, shop.topic_visits, 1_000_000)
    job = start_job(programs, shop, tmp_path / "recovery")
    wait_until_right(shop)
    job.terminate()
    assert end_of(job)[0] == 0


def set_largest_row(admin: AdminClient, topic: str, size: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux lets a test limit another process")
@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
def test_a_recovery_store_on_a_full_disk_ends_the_job_in_one_line(
    shop: Settings, programs: Programs, tmp_path: Path
) -> None:
    traffic = programs.start(*TRAFFIC, **environment(shop))
    job = start_job(programs, shop, tmp_path / "recovery")
    wait_until(lambda: count_visits(shop) > 20, "the job writes")
    resource.prlimit(job.pid, resource.RLIMIT_FSIZE, (2**16, 2**16))  # as if the disk were full; its log is shorter
    status, lines = end_of(job)
    assert status == 1
    assert lines[-1].startswith("visits: the recovery store cannot be used (")
    assert not any("Traceback" in line for line in lines)
    start_job(programs, shop, tmp_path / "recovery")
    before = count_visits(shop)
    wait_until(lambda: count_visits(shop) > before + 50, "the job goes on")
    traffic.terminate()
    assert traffic.wait() == 0
    wait_until_right(shop)
