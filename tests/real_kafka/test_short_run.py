"""The whole job on a real Kafka, in short: killed once, and each row is written once."""

from pathlib import Path

import pytest
from support.jobs import LIVE, count_visits, settings_of, wait_until, wait_until_right
from support.programs import Programs, environment
from support.real_kafka import RealKafka

pytestmark = pytest.mark.kafka


def test_a_killed_job_writes_each_row_once(real_kafka: RealKafka, programs: Programs, tmp_path: Path) -> None:
    shop = settings_of(real_kafka).model_copy(update=LIVE)
    run = "dataflow", "-r", str(tmp_path / "recovery"), "-s", "1"
    traffic = programs.start("producer", "--rate", "200", "--events", "1000", "--users", "60", **environment(shop))
    job = programs.start(*run, "-w", "2", **environment(shop))
    wait_until(lambda: count_visits(shop) > 50, "the job writes", job)
    job.kill()
    job.wait()
    job = programs.start(*run, **environment(shop))
    assert traffic.wait() == 0
    wait_until_right(shop, job)
    job.terminate()
    assert job.wait() == 0
