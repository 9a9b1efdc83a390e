"""What the watermark waits for, in words."""

from collections.abc import Sequence

from dataflow.pace import AHEAD
from dataflow.progress import Standing
from dataflow.rules.rows import END, NEVER, SECOND, Time
from dataflow.words import count, moment

FRESH = 3 * SECOND  # a partition at its end says so about twice a second

UNHEARD = "unheard of"
READING = "reading"
FAR_AHEAD = "far ahead"
AT_END = "at its end"
UNCONFIRMED = "no answer"
GRACE = "waits for writers"
ELSEWHERE = "read elsewhere"
ENDED = "ended"


def state(standing: Standing, slowest: Time, now: int) -> str:
    """In a word what a partition is about; `slowest` is the lowest bound of all, `now` the wall clock."""
    if standing.bound == END:
        return ENDED
    if standing.offset is None:
        return UNHEARD if standing.bound == NEVER else ELSEWHERE
    if standing.read_to_end is not None and now - standing.read_to_end <= FRESH:
        return AT_END  # though a few rows may have come since
    if standing.to_read:
        return FAR_AHEAD if standing.bound > slowest + AHEAD else READING
    if standing.back_at > now - FRESH:  # the next end that it tells counts
        return GRACE
    return UNHEARD if standing.read_to_end is None and standing.bound == NEVER else UNCONFIRMED


def holding(standings: Sequence[Standing], now: int) -> list[Standing]:
    """Those that do hold the watermark back, the one with the most to read first.

    The slowest is no such one if it is at its end, or as far as others: it goes on with the clock.
    """
    highest = max((each.bound for each in standings), default=NEVER)

    def in_step(each: Standing) -> bool:
        kind = state(each, each.bound, now)
        return kind in (AT_END, ENDED) or (kind == ELSEWHERE and each.bound >= highest - FRESH)

    held = [each for each in standings if each.holds and not in_step(each)]
    return sorted(held, key=lambda each: -(each.to_read or 0))


def why(standing: Standing, now: int, kafka_is_up: bool) -> str:
    """Why the watermark is no farther than this partition lets it, as a sentence of which it is the subject."""
    kind = state(standing, standing.bound, now)
    if kind == ELSEWHERE:
        return f"is read by another process, and is at {_at(standing.bound)}"
    if standing.offset is None:
        return "has not been heard of: whoever reads it has not yet told this process of a row, or of its end"
    if not kafka_is_up:
        return f"may have more rows by now, but no Kafka broker can be reached{_since(standing, now)}"
    if kind == READING:
        at = "none has been read" if standing.bound == NEVER else f"it is at {_at(standing.bound)}"
        return f"is being read: {count(standing.to_read, 'row')} to its end, {at}"
    if kind == GRACE:
        left = max(0, standing.back_at - now) / SECOND
        return f"gives those who write to it {left:.0f} s to come back, as after every start and outage"
    return f"may have more rows by now, but its leader does not answer, or hides them{_since(standing, now)}"


def summary(standings: Sequence[Standing], held: Sequence[Standing], now: int, kafka_is_up: bool) -> str:
    """What the watermark waits for, in one sentence; `held` is what `holding` says."""
    if not any(each.holds for each in standings):
        return "No shard of this process has heard of any partition yet."
    if not held and all(each.bound == NEVER for each in standings):
        return "No partition has a row yet: event time has not begun."
    if not held:
        return "Nothing holds the watermark back: it goes on with the clock."
    more = f"; so do {len(held) - 1} more" if len(held) > 2 else "; so does one more" if len(held) == 2 else ""
    return f"The watermark waits for {held[0].source}, which {why(held[0], now, kafka_is_up)}{more}."


def _at(bound: Time) -> str:
    return moment(bound // SECOND * SECOND)


def _since(standing: Standing, now: int) -> str:
    if standing.read_to_end is None:
        return ""
    return f" (last seen at its end {(now - standing.read_to_end) / SECOND:.0f} s ago)"
