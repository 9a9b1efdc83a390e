"""A short run of the random faults of `make chaos`, and a control with duplicates that it must notice."""

import pytest
from support.real_kafka import RealKafka

from chaos import control
from chaos.run import Options, run

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 1
FAULTS = ["kill-again", "pause-workers", "kill-behind-paused-broker", "kill-behind-dead-broker", "rescale", "outage"]


def test_job_writes_each_row_once_under_kills_pauses_and_outages(real_kafka: RealKafka) -> None:
    verdict = run(real_kafka, SEED, Options(rounds=len(FAULTS), every=1, faults=FAULTS, first_kills=1))
    assert verdict is not None
    assert verdict.right
    assert all(difference.expected for difference in verdict.differences)  # all topics have been tried


def test_a_killed_job_with_the_engines_own_sink_writes_duplicates(real_kafka: RealKafka) -> None:
    verdict = run(
        real_kafka, SEED, Options(rounds=1, every=1, faults=["kill-all"], first_kills=1, module=control.MODULE)
    )
    assert verdict is not None
    assert verdict.missing + verdict.extra
