"""What the watermark waits for, in words."""

from collections.abc import Sequence

from dataflow.observability.formatting import pluralize, utc_text
from dataflow.observability.progress import PartitionStatus
from dataflow.streaming.alignment import MAX_DRIFT
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND, Time

FRESH = 3 * SECOND  # a partition at its end says so about twice a second

UNHEARD = "unheard of"
READING = "reading"
FAR_AHEAD = "far ahead"
AT_END = "at its end"
UNCONFIRMED = "no answer"
GRACE = "waits for writers"
ELSEWHERE = "read elsewhere"
ENDED = "ended"


def partition_state(status: PartitionStatus, slowest: Time, now: int) -> str:
    """In a word what a partition is about; `slowest` is the lowest bound of all, `now` the wall clock."""
    if status.source_watermark == MAX_TIME:
        return ENDED
    if status.offset is None:
        return UNHEARD if status.source_watermark == MIN_TIME else ELSEWHERE
    if status.read_to_end is not None and now - status.read_to_end <= FRESH:
        return AT_END  # though a few rows may have come since
    if status.to_read:
        return FAR_AHEAD if status.source_watermark > slowest + MAX_DRIFT else READING
    if status.back_at > now - FRESH:  # the next end that it tells counts
        return GRACE
    return UNHEARD if status.read_to_end is None and status.source_watermark == MIN_TIME else UNCONFIRMED


def blocking_partitions(statuses: Sequence[PartitionStatus], now: int) -> list[PartitionStatus]:
    """Those that do hold the watermark back, the one with the most to read first.

    The slowest is no such one if it is at its end, or as far as others: it goes on with the clock.
    """
    highest = max((each.source_watermark for each in statuses), default=MIN_TIME)

    def in_step(each: PartitionStatus) -> bool:
        kind = partition_state(each, each.source_watermark, now)
        return kind in (AT_END, ENDED) or (kind == ELSEWHERE and each.source_watermark >= highest - FRESH)

    held = [each for each in statuses if each.blocks_watermark and not in_step(each)]
    return sorted(held, key=lambda each: -(each.to_read or 0))


def reason(status: PartitionStatus, now: int, kafka_is_up: bool) -> str:
    """Why the watermark is no farther than this partition lets it, as a sentence of which it is the subject."""
    kind = partition_state(status, status.source_watermark, now)
    if kind == ELSEWHERE:
        return f"is read by another process, and is at {_at(status.source_watermark)}"
    if status.offset is None:
        return "has not been heard of: whoever reads it has not yet told this process of a row, or of its end"
    if not kafka_is_up:
        return f"may have more rows by now, but no Kafka broker can be reached{_since(status, now)}"
    if kind == READING:
        at = "none has been read" if status.source_watermark == MIN_TIME else f"it is at {_at(status.source_watermark)}"
        return f"is being read: {pluralize(status.to_read or 0, 'row')} to its end, {at}"
    if kind == GRACE:
        left = max(0, status.back_at - now) / SECOND
        return f"gives those who write to it {left:.0f} s to come back, as after every start and outage"
    return f"may have more rows by now, but its leader does not answer, or hides them{_since(status, now)}"


def summary(statuses: Sequence[PartitionStatus], held: Sequence[PartitionStatus], now: int, kafka_is_up: bool) -> str:
    """What the watermark waits for, in one sentence; `held` is what `holding` says."""
    if not any(each.blocks_watermark for each in statuses):
        return "No shard of this process has heard of any partition yet."
    if not held and all(each.source_watermark == MIN_TIME for each in statuses):
        return "No partition has a row yet: event time has not begun."
    if not held:
        return "Nothing holds the watermark back: it goes on with the clock."
    more = f"; so do {len(held) - 1} more" if len(held) > 2 else "; so does one more" if len(held) == 2 else ""
    return f"The watermark waits for {held[0].source}, which {reason(held[0], now, kafka_is_up)}{more}."


def _at(bound: Time) -> str:
    return utc_text(bound // SECOND * SECOND)


def _since(status: PartitionStatus, now: int) -> str:
    if status.read_to_end is None:
        return ""
    return f" (last seen at its end {(now - status.read_to_end) / SECOND:.0f} s ago)"
