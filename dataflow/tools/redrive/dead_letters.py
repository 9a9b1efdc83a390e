"""Letters: rows of `dead-letters` and `late-events`, each with what it was and why it is there."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from dataflow.kafka.messages import Message
from dataflow.streaming.time import SECOND
from dataflow.tools.command_line import MessageAddress

_MILLISECOND = 1_000


@dataclass(frozen=True)
class DeadLetter:
    """A row that the job has put aside."""

    at: MessageAddress  # where it stands now
    key: bytes | None
    value: bytes | None
    reason: str
    origin: MessageAddress | None  # which message it was; None: it does not say, so it is not of this job
    stored: int  # when the job put it aside, by Kafka's timestamp, microseconds

    @classmethod
    def of(cls, message: Message) -> "DeadLetter":
        headers = {name: (value or b"").decode(errors="replace") for name, value in message.headers() or ()}
        at = MessageAddress(message.topic(), message.partition(), message.offset())
        stored = max(message.timestamp()[1], 0) * _MILLISECOND
        return cls(at, message.key(), message.value(), headers.get("reason", ""), _origin(headers), stored)


def _origin(headers: dict[str, str]) -> MessageAddress | None:
    topic, partition, offset = (headers.get(name, "") for name in ("topic", "partition", "offset"))
    if not topic or not partition.isdecimal() or not offset.isdecimal():
        return None
    return MessageAddress(topic, int(partition), int(offset))


@dataclass(frozen=True)
class Selection:
    """Which letters are wanted; what is None does not matter."""

    reason: str | None = None  # is part of theirs
    topic: str | None = None  # they came from
    since: float | None = None  # Unix seconds, when they were put aside
    until: float | None = None
    at: Collection[MessageAddress] | None = None

    def __contains__(self, letter: DeadLetter) -> bool:
        seconds = letter.stored / SECOND
        return (
            (self.reason is None or self.reason in letter.reason)
            and (self.topic is None or letter.origin is not None and letter.origin.topic == self.topic)
            and (self.since is None or seconds >= self.since)
            and (self.until is None or seconds < self.until)
            and (self.at is None or letter.at in self.at)
        )


def dead_letters(messages: Iterable[Message], selection: Selection) -> Iterator[DeadLetter]:
    """Those messages that are wanted, as letters."""
    return (letter for letter in map(DeadLetter.of, messages) if letter in selection)


@dataclass
class Group:
    """Letters that are alike: from one topic, for one reason."""

    count: int = 0
    first: int = 0  # microseconds
    last: int = 0


Kind = tuple[str, str, str]  # topic where they are, topic where they came from, reason


def grouped(all_letters: Iterable[DeadLetter], look: Callable[[DeadLetter], None]) -> dict[Kind, Group]:
    """Counts letters; `look` gets to see each."""
    groups: dict[Kind, Group] = {}
    for letter in all_letters:
        look(letter)
        kind = letter.at.topic, letter.origin.topic if letter.origin else "?", letter.reason
        group = groups.setdefault(kind, Group(first=letter.stored))
        group.count += 1
        group.first, group.last = min(group.first, letter.stored), max(group.last, letter.stored)
    return groups


class OutcomeCounter:
    """How many letters met which end; of each end some are told by name."""

    _TOLD = 5

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.ends: Counter[str] = Counter()
        self._tell = tell

    def add(self, end: str, letter: DeadLetter, why: str | None = None) -> None:
        """Counts one; it is told if there is something to say of it."""
        self.ends[end] += 1
        if why is not None and self.ends[end] <= self._TOLD:
            self._tell(f"{letter.at}: {end}: {why}")
        elif why is not None and self.ends[end] == self._TOLD + 1:
            self._tell(f"more of these are only counted: {end}")
