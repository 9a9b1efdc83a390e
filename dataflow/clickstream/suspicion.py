"""Which closed sessions are suspicious.

Each rule is one `SuspicionRule` in `SUSPICION_RULES`; the first that holds gives the session its `type`. Its setting
(`VISITS_` and the threshold's name in capitals), its rows in `suspicious-visits`, its texts in `explain`, on the live
page and in the demo follow from that. CONTRIBUTING.md says what else a new rule needs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dataflow.clickstream.kinds import DEFAULT_KINDS, Kinds
from dataflow.clickstream.records import Event


@dataclass(frozen=True)
class Threshold:
    """The number in a rule, and the setting that it is.

    Args:
        name: of the setting, in lower case without the prefix.
        default: its value if nothing is set.
        minimum: the least that can be set.
        description: what the table of settings says.
    """

    name: str
    default: int
    minimum: int
    description: str


@dataclass(frozen=True)
class SuspicionRule:
    """One reason for a session to be suspicious.

    Args:
        type: what the row in `suspicious-visits` carries; never reused for another rule.
        label: what people read on the live page and in the demo.
        threshold: the rule's number.
        test: whether a session's events, in order of time, are suspicious, given the threshold and the names of kinds.
        explain: why they are, as a sentence without its full stop, for `explain`.
    """

    type: int
    label: str
    threshold: Threshold
    test: Callable[[Sequence[Event], int, Kinds], bool]
    explain: Callable[[Sequence[Event], int, Kinds], str]


def _too_many_events(events: Sequence[Event], most: int, kinds: Kinds) -> bool:
    return len(events) > most


def _explain_too_many_events(events: Sequence[Event], most: int, kinds: Kinds) -> str:
    return f"{len(events)} events are more than {most}"


def _too_few_page_views(events: Sequence[Event], fewest: int, kinds: Kinds) -> bool:
    missing, page_views = fewest, kinds.page_views
    for event in events:
        if missing <= 0:
            break
        missing -= event.event_type in page_views
    return missing > 0


def _explain_too_few_page_views(events: Sequence[Event], fewest: int, kinds: Kinds) -> str:
    seen = sum(event.event_type in kinds.page_views for event in events)
    name = " or ".join(sorted(kinds.page_views)) or "page view"
    few = f"no {name}" if not seen else f"{seen} {name}{'s' if seen > 1 else ''}, fewer than {fewest},"
    return f"{few} among its {len(events):,} event{'' if len(events) == 1 else 's'}"


SUSPICION_RULES: tuple[SuspicionRule, ...] = (
    SuspicionRule(
        type=1,
        label="too many events",
        threshold=Threshold("max_events", 5, 1, "a session with more events than this is suspicious"),
        test=_too_many_events,
        explain=_explain_too_many_events,
    ),
    SuspicionRule(
        type=2,
        label="too few page views",
        threshold=Threshold("min_page_views", 1, 0, "a session with fewer page views than this is suspicious"),
        test=_too_few_page_views,
        explain=_explain_too_few_page_views,
    ),
)

DEFAULT_THRESHOLDS: Mapping[str, int] = MappingProxyType(
    {rule.threshold.name: rule.threshold.default for rule in SUSPICION_RULES}
)

Thresholds = Mapping[str, int]  # values of thresholds, by name; those left out have their defaults


def _value(threshold: Threshold, thresholds: Thresholds) -> int:
    return thresholds.get(threshold.name, threshold.default)


_by_type = {rule.type: rule for rule in SUSPICION_RULES}


def suspicion_of(
    events: Sequence[Event], thresholds: Thresholds = DEFAULT_THRESHOLDS, kinds: Kinds = DEFAULT_KINDS
) -> int | None:
    """The `type` of the first rule that holds for a session's events; None if the session is not suspicious."""
    for rule in SUSPICION_RULES:
        if rule.test(events, _value(rule.threshold, thresholds), kinds):
            return rule.type
    return None


def label_of(type: int) -> str:
    """What people read of a suspicion; also of a type that no rule of this version has."""
    rule = _by_type.get(type)
    return rule.label if rule is not None else f"type {type}"


def explanation_of(
    type: int, events: Sequence[Event], thresholds: Thresholds = DEFAULT_THRESHOLDS, kinds: Kinds = DEFAULT_KINDS
) -> str:
    """Why a session's events are suspicious by the rule of this type."""
    rule = _by_type[type]
    return rule.explain(events, _value(rule.threshold, thresholds), kinds)
