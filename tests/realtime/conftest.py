"""Every scenario says in the summary what came out, and why that is right."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataflow.runtime.settings import Settings
from realtime.world import Kafka, World


@pytest.fixture
def world(kafka: Kafka, topics: Settings, tmp_path: Path) -> Iterator[World]:
    world = World(kafka, topics, tmp_path)
    yield world
    world.close()


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Puts a line into the summary at the end of the run."""
    return lambda line: record_property("outcome", line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {line}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, line in report.user_properties
        if name == "outcome"
    ]
    if lines:
        terminalreporter.section("what came out, and why it is right")
        for line in lines:
            terminalreporter.write_line(line)
