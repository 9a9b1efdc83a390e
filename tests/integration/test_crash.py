"""A job that is killed again and again writes each row once; new partitions are read from their start."""

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from support.jobs import LIVE, count_rows, count_visits, wait_until, wait_until_right
from support.programs import Programs, environment, said_only_totals

from dataflow.runtime.settings import Settings


@pytest.fixture
def shop(topics: Settings) -> Settings:
    return topics.model_copy(update=LIVE)


def test_a_job_killed_at_any_number_of_workers_writes_each_row_once(
    shop: Settings, programs: Programs, tmp_path: Path
) -> None:
    traffic = programs.start(
        "producer", "--rate", "200", "--users", "60", "--disorder", "0.3", "--seed", "5", **environment(shop)
    )
    for workers in (1, 3, 2):
        before = count_visits(shop)
        job = programs.start(
            "dataflow", "-r", str(tmp_path / "recovery"), "-s", "2", "-w", str(workers), **environment(shop)
        )
        wait_until(lambda before=before: count_visits(shop) > before + 50, "the job writes")
        job.kill()
        job.wait()
    traffic.terminate()
    assert traffic.wait() == 0
    job = programs.start("dataflow", "-r", str(tmp_path / "recovery"), "-s", "2", **environment(shop))
    wait_until_right(shop)
    job.terminate()
    assert job.wait() == 0


def test_a_second_run_over_the_same_topics_writes_no_row_again(shop: Settings, programs: Programs) -> None:
    traffic = programs.start("producer", "--events", "500", "--speed", "max", "--users", "30", **environment(shop))
    assert traffic.wait() == 0
    for _ in range(2):
        assert said_only_totals(programs.run("bytewax.run", "dataflow:flow", **environment(shop, stop_at_end="1")))
        assert count_visits(shop) == 500
    wait_until_right(shop)


@pytest.mark.parametrize("kafka", [pytest.param("real", marks=[pytest.mark.kafka, pytest.mark.slow])], indirect=True)
def test_input_partitions_added_to_a_running_job_are_read_from_their_start(
    shop: Settings, programs: Programs, tmp_path: Path
) -> None:
    programs.start("dataflow", "-r", str(tmp_path / "recovery"), "-s", "1", **environment(shop))
    old_traffic = programs.start("producer", "--rate", "100", "--users", "40", **environment(shop))
    wait_until(lambda: count_visits(shop) > 50, "the job writes")
    admin = AdminClient({"bootstrap.servers": shop.brokers, "log_level": 0})
    for grown in admin.create_partitions([NewPartitions(topic, 11) for topic in shop.inputs]).values():
        grown.result()
    new_traffic = programs.start(
        "producer", "--rate", "100", "--users", "40", "--seed", "9", **environment(shop)
    )  # knows of all eleven
    wait_until(lambda: count_rows(shop, shop.topic_user_events, 8) > 30, "the shop writes into new partitions")
    counted = count_visits(shop)
    wait_until(lambda: count_visits(shop) > counted + 100, "the job goes on")
    for traffic in (old_traffic, new_traffic):
        traffic.terminate()
        assert traffic.wait() == 0
    wait_until_right(shop)
