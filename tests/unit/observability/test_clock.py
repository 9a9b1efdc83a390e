"""The job's clock: never steps, and is that of the first process."""

import pytest

from dataflow.observability import clock as module
from dataflow.observability.clock import JobClock

SECOND = 1_000_000


class Host:
    """The host's clocks, in microseconds."""

    def __init__(self, monkeypatch) -> None:
        self.wall, self.monotonic = 1_700_000_000 * SECOND, 5 * SECOND
        monkeypatch.setattr(module, "_wall", lambda: self.wall)
        monkeypatch.setattr(module, "_monotonic", lambda: self.monotonic)

    def pass_time(self, seconds: float) -> None:
        self.wall += round(seconds * SECOND)
        self.monotonic += round(seconds * SECOND)


@pytest.fixture
def host(monkeypatch) -> Host:
    return Host(monkeypatch)


@pytest.mark.parametrize("step", [600, -30])
def test_a_step_of_the_wall_clock_is_told_once_and_not_followed(host, caplog, step):
    clock = JobClock()
    began = clock.now()
    host.pass_time(10)
    clock.report_step()
    host.wall += step * SECOND
    for _ in range(3):
        clock.report_step()
    host.pass_time(10)
    assert clock.now() == began + 20 * SECOND
    assert [record.getMessage() for record in caplog.records] == [
        f"the host's clock has jumped by {step:+.1f} s; event time does not follow it"
    ]


def test_a_step_back_is_told_too(host, caplog):
    clock = JobClock()
    for step in 600, -600:
        host.wall += step * SECOND
        clock.report_step()
    assert len(caplog.records) == 2


def test_rows_are_of_the_future_by_the_later_clock(host):
    clock = JobClock()
    host.wall += 600 * SECOND
    assert clock.wall() == host.wall
    host.wall -= 1_200 * SECOND
    assert clock.wall() == clock.now() > host.wall


@pytest.mark.parametrize("skew", [30, -30])
def test_a_process_whose_clock_differs_takes_over_the_first_ones(host, caplog, skew):
    leader = host.wall
    host.wall += skew * SECOND
    clock = JobClock()
    clock.adjust_to(leader)
    host.pass_time(1)
    assert clock.now() == leader + SECOND
    assert "30.0 s" in caplog.text


def test_a_difference_within_the_measurement_is_left_alone(host, caplog):
    clock = JobClock()
    clock.adjust_to(clock.now() - 2 * SECOND)
    assert clock.now() == host.wall
    assert not caplog.records
