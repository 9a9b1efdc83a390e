"""Kafka clusters for the tests: librdkafka's own mock, and a real one where there is Java."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings
from programs import Programs
from real_kafka import RealKafka, unavailable

from dataflow.kafka.embedded import EmbeddedKafka
from dataflow.runtime.settings import Settings

Kafka = EmbeddedKafka | RealKafka

settings.register_profile("quick", max_examples=300, deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("long", max_examples=10_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture
def embedded_kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka() as kafka:
        yield kafka


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


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.kafka)])
def kafka(request: pytest.FixtureRequest) -> Kafka:
    """The same test on the mock and on a real cluster."""
    return request.getfixturevalue(f"{request.param}_kafka")


@pytest.fixture
def topics(kafka: Kafka) -> Settings:
    """All seven topics, empty, under names that no other test has; the settings name them and the cluster.

    Their job waits for nobody to come back from an outage: a test that breaks brokers under one that writes says it has to.
    """
    mark = uuid4().hex[:8]
    names = {
        name: f"{field.default}-{mark}" for name, field in Settings.model_fields.items() if name.startswith("topic_")
    }
    for name in names.values():
        kafka.create_topic(name)
    return Settings(_env_file=None, brokers=kafka.brokers, outage_grace=0, **names)


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
