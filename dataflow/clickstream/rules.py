"""What can be set of the rules: their numbers, and the names of kinds and of added fields."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dataflow.clickstream.kinds import DEFAULT_KINDS, Kinds
from dataflow.clickstream.serde import ADDED, AddedFields
from dataflow.clickstream.suspicion import DEFAULT_THRESHOLDS
from dataflow.streaming.time import SECOND


@dataclass(frozen=True)
class Rules:
    """What can be set of the rules; times are in microseconds of event time.

    Args:
        gap: session gap: events of one user at most this far apart are one session.
        window: match window: a purchase event takes a purchase row at most this far before or after it.
        lateness: allowed lateness: a row farther below its partition's max timestamp is late.
        shards: number of groups into which users are divided.
        thresholds: of the suspicion rules, by name.
        kinds: names of the kinds of events that the rules speak of.
        added: names of the fields that visits get: session id and amount.
    """

    gap: int = 20 * SECOND
    window: int = 5 * SECOND
    lateness: int = 5 * SECOND
    shards: int = 8
    thresholds: Mapping[str, int] = field(default_factory=lambda: DEFAULT_THRESHOLDS, hash=False)
    kinds: Kinds = DEFAULT_KINDS
    added: AddedFields = ADDED

    @property
    def retention(self) -> int:
        """How long a session is kept after its last event, in microseconds: until no event can extend it, and until each
        amount that depends on no later purchase event has come."""
        return max(self.gap, 2 * self.window)
