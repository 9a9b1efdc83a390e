"""What the watermark waits for, in words."""

from collections.abc import Sequence

from dataflow.pace import AHEAD
from dataflow.progress import Standing
from dataflow.rules.rows import END, NEVER, SECOND
from dataflow.words import count, moment

FRESH = 3 * SECOND  # a partition at its end says so about twice a second

UNHEARD, READING, AHEAD_OF_OTHERS, AT_END, UNCONFIRMED, ENDED = (
    "unheard of", "reading", "ahead", "at its end", "end not confirmed", "ended",
)  # fmt: skip
ELSEWHERE = "read elsewhere"


def state(standing: Standing, slowest: float, now: int) -> str:
    """In a word what a partition is about; `slowest` is the lowest bound of all, `now` the wall clock."""
    if standing.bound == END:
        return ENDED
    if standing.offset is None:
        return UNHEARD if standing.bound == NEVER else ELSEWHERE
    if standing.to_read:
        return AHEAD_OF_OTHERS if standing.bound > slowest + AHEAD else READING
    if standing.read_to_end is None:
        return UNHEARD if standing.bound == NEVER else UNCONFIRMED
    return AT_END if now - standing.read_to_end <= FRESH else UNCONFIRMED


def why(standing: Standing, now: int, kafka_is_up: bool) -> str:
    """Why the watermark is no farther than this partition lets it, in a sentence without a subject."""
    kind = state(standing, standing.bound, now)
    if kind == ENDED:
        return "has been read to the end, where the job stops"
    if kind == ELSEWHERE:
        return f"is read by another process, and is at {moment(standing.bound)}"
    if standing.offset is None:
        return "has not been heard of: the process that reads it has not told this one of any row, or of its end"
    if not kafka_is_up:
        return f"may have got more rows since, which nobody can say: no Kafka broker can be reached{_since(standing, now)}"
    if kind == READING:
        at = "none has been read" if standing.bound == NEVER else f"it is at {moment(standing.bound)}"
        return f"is being read: {count(standing.to_read, 'row')} to its end, {at}"
    if kind == AT_END:
        return "has no row yet, nor has any other" if standing.bound == NEVER else "is read to its end"
    return (
        "may have got more rows since: its leader does not answer, or has just come back and those who write to it "
        f"are given 20 s{_since(standing, now)}"
    )


def _since(standing: Standing, now: int) -> str:
    if standing.read_to_end is None:
        return ""
    return f" (last known to be at its end {(now - standing.read_to_end) / SECOND:.0f} s ago)"


def summary(standings: Sequence[Standing], now: int, kafka_is_up: bool) -> tuple[str, list[str]]:
    """Which partitions hold the watermark back and why: a sentence, and the partitions' names.

    One that is at its end holds nothing back: time goes on with the clock.
    """
    holding = [each for each in standings if each.holds]
    if not holding:
        return "No partition has been heard of yet.", []
    if all(state(each, each.bound, now) in (AT_END, ENDED) and each.bound > NEVER for each in holding):
        if holding[0].bound == END:
            return "Every partition has been read to the end, where the job stops.", []
        if any(each.to_read for each in standings):
            return "Nothing holds the watermark back: the slowest partition is at its end.", []
        return "Nothing holds the watermark back: every partition is at its end, and time goes on with the clock.", []
    first = max(holding, key=lambda each: each.to_read or 0)
    others = len(holding) - 1
    more = f"; so do {others} more" if others > 1 else "; so does one more" if others else ""
    return f"The watermark waits for {first.source}, which {why(first, now, kafka_is_up)}{more}.", [
        each.source for each in holding
    ]
