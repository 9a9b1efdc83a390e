"""What the watermark waits for, in words."""

import pytest

from dataflow.dashboard.watermark_status import FRESH, blocking_partitions, partition_state, reason, summary
from dataflow.observability.progress import PartitionStatus
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND

NOW = 1_000 * SECOND


def standing(source: str = "clicks/0", **said: object) -> PartitionStatus:
    """A partition that is at its end, if nothing else is said."""
    usual = {
        "offset": 10,
        "end": 10,
        "read_to_end": NOW - SECOND,
        "back_at": 0,
        "source_watermark": 500 * SECOND,
        "blocks_watermark": True,
    }
    return PartitionStatus(source, **{**usual, **said})


@pytest.mark.parametrize(
    ("said", "kafka", "in_a_word", "sentence"),
    [
        pytest.param(
            {"read_to_end": None, "end": 1_300}, True, "reading",
            "is being read: 1,290 rows to its end, it is at 1970-01-01 00:08:20", id="a backlog",
        ),
        pytest.param(
            {"read_to_end": None, "end": 11, "source_watermark": MIN_TIME}, True, "reading",
            "is being read: 1 row to its end, none has been read", id="a backlog of which nothing was read",
        ),
        pytest.param(
            {"read_to_end": NOW - 12 * SECOND}, False, "no answer",
            "may have more rows by now, but no Kafka broker can be reached (last seen at its end 12 s ago)",
            id="brokers are away",
        ),
        pytest.param(
            {"read_to_end": NOW - 12 * SECOND}, True, "no answer",
            "may have more rows by now, but its leader does not answer, or they are not replicated yet (last seen at its end 12 s ago)",
            id="its leader is away",
        ),
        pytest.param(
            {"read_to_end": NOW - 12 * SECOND, "back_at": NOW + 14 * SECOND}, True, "waits for writers",
            "gives its producers 14 s more to return, as after every start and outage", id="back from an outage",
        ),
        pytest.param(
            {"read_to_end": None, "end": None, "source_watermark": MIN_TIME}, True, "unheard of",
            "may have more rows by now, but its leader does not answer, or they are not replicated yet", id="its end has never been told",
        ),
        pytest.param(
            {"offset": None, "end": None, "read_to_end": None, "source_watermark": MIN_TIME}, True, "unheard of",
            "is unknown so far: the process that reads it has reported neither a row nor its end",
            id="of another process",
        ),
        pytest.param(
            {"offset": None, "end": None, "read_to_end": None}, True, "read elsewhere",
            "is read by another process, and is at 1970-01-01 00:08:20", id="of another process, behind",
        ),
    ],
)  # fmt: skip
def test_a_partition_that_blocks_the_watermark_says_why(said, kafka, in_a_word, sentence):
    held, other = standing(**said), standing("clicks/1", source_watermark=600 * SECOND, blocks_watermark=False)
    assert partition_state(held, held.source_watermark, NOW) == in_a_word
    assert blocking_partitions([held, other], NOW) == [held]
    assert reason(held, NOW, kafka) == sentence
    assert summary([held, other], [held], NOW, kafka) == f"The watermark waits for clicks/0, which {sentence}."


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({}, id="at its end"),
        pytest.param({"end": 12}, id="at its end a moment ago, and rows have come since"),
        pytest.param({"source_watermark": MAX_TIME}, id="read to the end of all"),
        pytest.param(
            {"offset": None, "end": None, "read_to_end": None, "source_watermark": 599 * SECOND},
            id="elsewhere, in step",
        ),
    ],
)
def test_an_idle_partition_does_not_block_the_watermark(said):
    slowest, other = standing(**said), standing("clicks/1", source_watermark=600 * SECOND, blocks_watermark=False)
    assert blocking_partitions([slowest, other], NOW) == []
    assert summary([slowest, other], [], NOW, True).startswith("Nothing holds the watermark back")


def test_event_time_starts_with_the_first_row():
    partitions = [standing(f"clicks/{number}", source_watermark=MIN_TIME) for number in range(2)]
    assert blocking_partitions(partitions, NOW) == []
    assert summary(partitions, [], NOW, True) == "No partition has a row yet: event time has not begun."


def test_of_several_blocking_partitions_the_longest_backlog_is_named():
    few, most = (standing(f"clicks/{end}", read_to_end=None, end=end) for end in (20, 30))
    held = blocking_partitions([few, most], NOW)
    assert held == [most, few]
    assert summary([few, most], held, NOW, True).endswith("; and for 1 more partition.")
    assert summary([few, most], [*held, few], NOW, True).endswith("; and for 2 more partitions.")


def test_a_paused_partition_differs_from_one_being_read():
    assert (
        partition_state(standing(read_to_end=None, end=20, source_watermark=100 * SECOND), 30 * SECOND, NOW)
        == "far ahead"
    )
    assert (
        partition_state(standing(read_to_end=None, end=20, source_watermark=100 * SECOND), 50 * SECOND, NOW)
        == "reading"
    )
    assert FRESH < 10 * SECOND
