"""A recovery store that cannot be resumed is refused in one line, and stays usable."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.jobs import LIVE, a_log, click, settings_of, wait_until, wait_until_right, write
from support.logs import NOON
from support.programs import Programs, end_of, environment

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings


def assert_ends_in_one_line(ended: tuple[int, list[str]], line: str) -> None:
    """Behind what it says of its start."""
    status, lines = ended
    assert status != 0
    assert all(each.startswith("visits: ") for each in lines), lines
    assert line in lines[-1]


@pytest.fixture(scope="module")
def stopped(_embedded_cluster: EmbeddedKafka, tmp_path_factory) -> Iterator[tuple[Settings, Path]]:
    """The settings and the recovery store of a job that had read everything when it was stopped."""
    settings = settings_of(_embedded_cluster).model_copy(update=LIVE)
    programs, store = Programs(tmp_path_factory.mktemp("job")), tmp_path_factory.mktemp("store") / "recovery"
    write(settings.brokers, a_log(settings, NOON, keyed=True, events=300))
    job = programs.start("dataflow", "-r", str(store), "-s", "0.5", **environment(settings))
    try:
        wait_until(lambda: "caught up" in job.log.read_text(), "the job has read everything", job)
        job.send_signal(signal.SIGTERM)
        assert end_of(job)[0] == 0
        yield settings, store
    finally:
        programs.kill_all()


@pytest.fixture
def store(stopped: tuple[Settings, Path], tmp_path: Path) -> Path:
    return shutil.copytree(stopped[1], tmp_path / "recovery")


def test_a_resume_with_other_shards_is_refused_and_the_store_stays_usable(stopped, store, programs):
    settings, _ = stopped
    refused = programs.run("dataflow", "-r", str(store), **environment(settings, shards="4"))
    assert_ends_in_one_line(
        refused, "the recovery store was written with 8 shards and this job has 4; set VISITS_SHARDS=8"
    )
    click(settings, range(20))
    job = programs.start("dataflow", "-r", str(store), **environment(settings))
    wait_until_right(settings, job)


def test_a_resume_at_offsets_that_are_gone_is_refused(stopped, store, programs):
    settings, _ = stopped
    with EmbeddedKafka() as emptied:
        for topic in settings.inputs + settings.outputs:
            emptied.create_topic(topic)
        ended = programs.run("dataflow", "-r", str(store), **environment(settings, brokers=emptied.brokers))
    assert_ends_in_one_line(ended, "is not in Kafka (any more)")


def test_a_resume_of_a_run_that_stopped_at_the_end_is_refused(embedded_settings, programs, tmp_path):
    write(embedded_settings.brokers, a_log(embedded_settings, NOON, keyed=True, events=50))
    run = "dataflow", "-r", str(tmp_path / "recovery")
    assert programs.run(*run, **environment(embedded_settings, stop_at_end="1"))[0] == 0
    ended = programs.run(*run, **environment(embedded_settings))
    assert_ends_in_one_line(
        ended, "the recovery store is of a run that closed every session at the end (VISITS_STOP_AT_END)"
    )


@pytest.mark.parametrize(
    ("make", "line"),
    [
        pytest.param(lambda path: path.write_text(""), "has to be a directory, and is a file (-r)", id="a file"),
        pytest.param(
            lambda path: (path.mkdir(), (path / "part-0.sqlite3").write_text("something else")),
            "cannot be used: file is not a database",
            id="not a store",
        ),
    ],
)
def test_a_recovery_store_that_cannot_be_used_is_refused(embedded_settings, programs, tmp_path, make, line):
    make(tmp_path / "store")
    ended = programs.run("dataflow", "-r", str(tmp_path / "store"), **environment(embedded_settings))
    assert_ends_in_one_line(ended, line)
