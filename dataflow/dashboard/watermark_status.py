"""Which partitions the watermark waits for, and why, as text."""

from collections.abc import Sequence

from dataflow.observability.formatting import pluralize, utc_text
from dataflow.observability.progress import PartitionStatus
from dataflow.streaming.alignment import MAX_DRIFT
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND, Time

FRESH = 3 * SECOND  # a partition at its end reports it about twice a second

UNHEARD = "unheard of"
READING = "reading"
FAR_AHEAD = "far ahead"
AT_END = "at its end"
UNCONFIRMED = "no answer"
GRACE = "waits for writers"
ELSEWHERE = "read elsewhere"
ENDED = "ended"


def partition_state(status: PartitionStatus, slowest: Time, now: int) -> str:
    """The state of a partition in a word or two.

    Args:
        status: of the partition.
        slowest: the lowest source watermark of all partitions.
        now: wall clock, microseconds.
    """
    if status.source_watermark == MAX_TIME:
        return ENDED
    if status.offset is None:
        return UNHEARD if status.source_watermark == MIN_TIME else ELSEWHERE
    if status.read_to_end is not None and now - status.read_to_end <= FRESH:
        return AT_END  # even if a few rows have arrived since
    if status.to_read:
        return FAR_AHEAD if status.source_watermark > slowest + MAX_DRIFT else READING
    if status.back_at > now - FRESH:  # the first end after the grace period counts, and may not be reported yet
        return GRACE
    return UNHEARD if status.read_to_end is None and status.source_watermark == MIN_TIME else UNCONFIRMED


def blocking_partitions(statuses: Sequence[PartitionStatus], now: int) -> list[PartitionStatus]:
    """The partitions that really hold the watermark back, the one with the most rows to read first.

    The slowest partition does not if it is at its end, or as far as the others: its watermark follows the clock.
    """
    highest = max((status.source_watermark for status in statuses), default=MIN_TIME)

    def keeps_up(status: PartitionStatus) -> bool:
        state = partition_state(status, status.source_watermark, now)
        return state in (AT_END, ENDED) or (state == ELSEWHERE and status.source_watermark >= highest - FRESH)

    blocking = [status for status in statuses if status.blocks_watermark and not keeps_up(status)]
    return sorted(blocking, key=lambda status: -(status.to_read or 0))


def reason(status: PartitionStatus, now: int, kafka_is_up: bool) -> str:
    """Why the watermark waits for this partition, as the rest of a sentence whose subject is the partition."""
    state = partition_state(status, status.source_watermark, now)
    if state == ELSEWHERE:
        return f"is read by another process, and is at {_at(status.source_watermark)}"
    if status.offset is None:
        return "is unknown so far: the process that reads it has reported neither a row nor its end"
    if not kafka_is_up:
        return f"may have more rows by now, but no Kafka broker can be reached{_since(status, now)}"
    if state == READING:
        at = "none has been read" if status.source_watermark == MIN_TIME else f"it is at {_at(status.source_watermark)}"
        return f"is being read: {pluralize(status.to_read or 0, 'row')} to its end, {at}"
    if state == GRACE:
        left = max(0, status.back_at - now) / SECOND
        return f"gives its producers {left:.0f} s more to return, as after every start and outage"
    return (
        "may have more rows by now, but its leader does not answer, or they are not replicated yet"
        f"{_since(status, now)}"
    )


def summary(
    statuses: Sequence[PartitionStatus], blocking: Sequence[PartitionStatus], now: int, kafka_is_up: bool
) -> str:
    """What the watermark waits for, in one sentence.

    Args:
        statuses: of all partitions.
        blocking: those of `blocking_partitions`.
        now: wall clock, microseconds.
        kafka_is_up: whether a broker can be reached.
    """
    if not any(status.blocks_watermark for status in statuses):
        return "This process has no news of any partition yet."
    if not blocking and all(status.source_watermark == MIN_TIME for status in statuses):
        return "No partition has a row yet: event time has not begun."
    if not blocking:
        return "Nothing holds the watermark back: it follows the clock."
    more = f"; and for {pluralize(len(blocking) - 1, 'more partition')}" if len(blocking) > 1 else ""
    return f"The watermark waits for {blocking[0].source}, which {reason(blocking[0], now, kafka_is_up)}{more}."


def _at(source_watermark: Time) -> str:
    return utc_text(source_watermark // SECOND * SECOND)


def _since(status: PartitionStatus, now: int) -> str:
    if status.read_to_end is None:
        return ""
    return f" (last seen at its end {(now - status.read_to_end) / SECOND:.0f} s ago)"
