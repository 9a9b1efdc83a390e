"""When a consumer that delivers nothing is replaced."""

from itertools import pairwise

import pytest

from dataflow.kafka.end_offset_poller import ConfirmedEnd
from dataflow.kafka.stalled_reads import StallDetector
from dataflow.streaming.time import SECOND

NEXT = 70  # the next offset to be read


def replacements(detector: StallDetector, seconds: range, end: int, answered: bool = True) -> list[int]:
    """The seconds at which the consumer is replaced, with a poll a second that delivers nothing."""
    return [
        second
        for second in seconds
        if detector.is_stalled(
            second * SECOND, NEXT, ConfirmedEnd((second if answered else 0) * SECOND, end, sure=False)
        )
    ]


def test_it_is_replaced_after_10_s_without_a_row_that_is_there():
    assert replacements(StallDetector("clicks/0"), range(30), end=95) == [10]


def test_further_replacements_come_ever_more_rarely_and_are_told_once(caplog):
    seconds = replacements(StallDetector("clicks/0"), range(3_000), end=95)
    gaps = [later - earlier for earlier, later in pairwise(seconds)]
    assert gaps[:4] == [21, 41, 81, 161]
    assert set(gaps[4:]) == {321}
    assert caplog.messages == [
        "clicks/0: nothing can be read at offset 70, though it ends at 95; is a transaction open? Trying again"
    ]


def test_once_rows_come_again_that_is_told_and_the_next_stall_is_a_first_one(caplog):
    caplog.set_level("INFO")
    detector = StallDetector("clicks/0")
    assert replacements(detector, range(100), end=95) == [10, 31, 72]
    detector.record_delivery()
    assert caplog.messages[-1] == "clicks/0 is read again, with a new connection"
    assert replacements(detector, range(100, 120), end=95) == [110]


@pytest.mark.parametrize(
    ("end", "answered"),
    [pytest.param(NEXT, True, id="it is at the end"), pytest.param(95, False, id="its leader does not answer")],
)
def test_it_is_kept_while_nothing_more_is_known_to_be_there(end, answered):
    assert replacements(StallDetector("clicks/0"), range(5, 60), end, answered) == []


def test_it_is_kept_while_no_end_is_known():
    detector = StallDetector("clicks/0")
    assert not any(detector.is_stalled(second * SECOND, NEXT, None) for second in range(60))


def test_a_silent_leader_begins_the_time_anew():
    detector = StallDetector("clicks/0")
    assert replacements(detector, range(9), end=95) == []
    assert replacements(detector, range(9, 20), end=95, answered=False) == []
    assert replacements(detector, range(20, 35), end=95) == [30]
