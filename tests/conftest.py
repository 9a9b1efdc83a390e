"""Kafka clusters for the tests: librdkafka's own mock, and a real one where there is Java."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support.jobs import Kafka, settings_of
from support.programs import Programs
from support.real_kafka import RealKafka, unavailable

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings

# in each, one job or one broker is for all tests
ONE_PROCESS = {f"tests/integration/{name}.py" for name in ("test_explain", "test_metrics", "test_resume")}

settings.register_profile("quick", max_examples=300, deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("long", max_examples=10_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session")
def _embedded_cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as kafka:
        yield kafka


@pytest.fixture
def embedded_kafka(_embedded_cluster: EmbeddedKafka) -> Iterator[EmbeddedKafka]:
    """One mock cluster for all tests of a process; what a test stopped is up again for the next."""
    yield _embedded_cluster
    _embedded_cluster.start_brokers()
    _embedded_cluster.set_round_trip(0)


@pytest.fixture(scope="session")
def java() -> None:
    """For what needs a real Kafka."""
    if reason := unavailable():
        if os.environ.get("REAL_KAFKA") == "required":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def _real_cluster(java: None) -> Iterator[RealKafka]:
    with RealKafka() as kafka:
        yield kafka


@pytest.fixture
def real_kafka(_real_cluster: RealKafka) -> Iterator[RealKafka]:
    """One cluster for all tests, since it takes long to start; what a test stopped is up again for the next."""
    yield _real_cluster
    _real_cluster.start_brokers()


@pytest.fixture(params=["embedded", pytest.param("real", marks=[pytest.mark.kafka, pytest.mark.slow])])
def kafka(request: pytest.FixtureRequest) -> Kafka:
    """The same test on the mock and, in the slow tests, on a real cluster."""
    return request.getfixturevalue(f"{request.param}_kafka")


@pytest.fixture
def topics(kafka: Kafka) -> Settings:
    """Settings with a cluster, and with topics and a group that no other test has."""
    return settings_of(kafka)


@pytest.fixture
def embedded_settings(embedded_kafka: EmbeddedKafka) -> Settings:
    """The same for a test that needs no second broker to be believed."""
    return settings_of(embedded_kafka)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two processes a core with `-n auto`: tests of the whole job wait most of the time, for event time to go by."""
    return 2 * (os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share something slow to start run in one process of pytest-xdist; all others run anywhere.

    The marker `xdist_group` is for this, but pytest-xdist 3.8 ignores it with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.startswith(("tests/real_kafka/", "tests/chaos/")) or "[real" in nodeid:
                return "the real Kafka"
            return file if file in ONE_PROCESS else nodeid

    return Scheduling(config, log)


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path)
    yield started
    started.kill_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure is reported with what the programs of the test have to say."""
    report = yield
    if call.when == "call" and report.failed and "programs" in item.fixturenames:
        report.sections += item.funcargs["programs"].last_words()
    return report
