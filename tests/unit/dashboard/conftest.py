"""A job in memory, and a probe that observes it."""

import pytest
from support.logs import EVENTS, PURCHASES, Job

from dataflow.clickstream.inputs import default_inputs
from dataflow.dashboard.probe import DashboardProbe


@pytest.fixture
def probe() -> DashboardProbe:
    return DashboardProbe(8, default_inputs())


@pytest.fixture
def job(probe: DashboardProbe) -> Job:
    return Job(probe=probe, logs={EVENTS: [], PURCHASES: []})
