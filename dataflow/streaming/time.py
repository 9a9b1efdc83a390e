"""Event time: microseconds since the Unix epoch.

Times are integers, so that they add and compare exactly: a gap of 20 s is 20,000,000, not nearly that.
"""

import math
from typing import Protocol

SECOND = 1_000_000  # microseconds

# before and after every time; floats, because they compare with integers of any size
MIN_TIME = -math.inf
MAX_TIME = math.inf

Time = int | float  # an event time in microseconds, or MIN_TIME, or MAX_TIME


class TimedRow(Protocol):
    """What the join and the session windows need of a row: when it happened, and whose it is."""

    time: int
    user: bytes
