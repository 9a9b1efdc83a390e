"""Dead letters: here, the rows of `dead-letters` and of `late-events`, each with its reason and its origin."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from dataflow.kafka.messages import Message
from dataflow.streaming.time import SECOND
from dataflow.tools.command_line import MessageAddress

_MILLISECOND = 1_000  # microseconds


@dataclass(frozen=True)
class DeadLetter:
    """A row that the job has rejected."""

    at: MessageAddress  # its own address
    key: bytes | None
    value: bytes | None
    reason: str
    origin: MessageAddress | None  # the row that was rejected; None: no headers, so it is not of this job
    stored: int  # when Kafka stored it, microseconds; 0: not known

    @classmethod
    def of(cls, message: Message) -> "DeadLetter":
        """Reads a message of one of the two topics."""
        headers = {name: (value or b"").decode(errors="replace") for name, value in message.headers() or ()}
        at = MessageAddress(message.topic(), message.partition(), message.offset())
        stored = max(message.timestamp()[1], 0) * _MILLISECOND
        return cls(at, message.key(), message.value(), headers.get("reason", ""), _origin(headers), stored)


def _origin(headers: dict[str, str]) -> MessageAddress | None:
    topic, partition, offset = (headers.get(name, "") for name in ("topic", "partition", "offset"))
    if not topic or not partition.isdecimal() or not offset.isdecimal():
        return None
    part = headers.get("part", "")
    return MessageAddress(topic, int(partition), int(offset), int(part) if part.isdecimal() else None)


@dataclass(frozen=True)
class Selection:
    """Conditions that dead letters must meet; None: any."""

    reason: str | None = None  # a part of the reason
    topic: str | None = None  # the topic that the row came from
    since: float | None = None  # stored at this time or later, Unix seconds
    until: float | None = None  # stored before this time, Unix seconds
    at: Collection[MessageAddress] | None = None

    def __contains__(self, dead_letter: DeadLetter) -> bool:
        seconds = dead_letter.stored / SECOND
        return (
            (self.reason is None or self.reason in dead_letter.reason)
            and (self.topic is None or dead_letter.origin is not None and dead_letter.origin.topic == self.topic)
            and (self.since is None or seconds >= self.since)
            and (self.until is None or seconds < self.until)
            and (self.at is None or dead_letter.at in self.at)
        )


def select_dead_letters(messages: Iterable[Message], selection: Selection) -> Iterator[DeadLetter]:
    """The messages that are selected, as dead letters."""
    return (dead_letter for dead_letter in map(DeadLetter.of, messages) if dead_letter in selection)


@dataclass
class Group:
    """Dead letters of one topic, from one topic, with one reason."""

    count: int = 0
    first: int = 0  # when Kafka stored the earliest, microseconds
    last: int = 0


GroupKey = tuple[str, str, str]  # topic, topic that they came from, reason


def grouped(dead_letters: Iterable[DeadLetter], on_each: Callable[[DeadLetter], None]) -> dict[GroupKey, Group]:
    """Groups dead letters.

    Args:
        dead_letters: what to group.
        on_each: called with each of them.
    """
    groups: dict[GroupKey, Group] = {}
    for dead_letter in dead_letters:
        on_each(dead_letter)
        from_topic = dead_letter.origin.topic if dead_letter.origin else "?"
        group = groups.setdefault(
            (dead_letter.at.topic, from_topic, dead_letter.reason), Group(first=dead_letter.stored)
        )
        group.count += 1
        group.first, group.last = min(group.first, dead_letter.stored), max(group.last, dead_letter.stored)
    return groups


class OutcomeCounter:
    """Counts outcomes, and prints the details of the first few of each.

    Args:
        print_line: prints one line.
    """

    _PRINTED = 5

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._print_line = print_line

    def add(self, outcome: str, dead_letter: DeadLetter, detail: str | None = None) -> None:
        """Counts one outcome. With a detail it is printed, unless enough of this outcome have been."""
        self.counts[outcome] += 1
        if detail is not None and self.counts[outcome] <= self._PRINTED:
            self._print_line(f"{dead_letter.at}: {outcome}: {detail}")
        elif detail is not None and self.counts[outcome] == self._PRINTED + 1:
            self._print_line(f"further rows are only counted: {outcome}")
