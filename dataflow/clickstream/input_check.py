"""Notices inputs that can hardly be meant so: nothing can be read, or no event is of a kind that the rules speak of."""

from collections import Counter
from collections.abc import Callable, Collection

from dataflow.clickstream.kinds import Kinds
from dataflow.clickstream.records import Event
from dataflow.streaming.batches import PolledBatch

UNREADABLE, NO_PAGE_VIEW, NO_PURCHASE = "unreadable", "no-page-view", "no-purchase"  # names of problems
PROBLEMS = (UNREADABLE, NO_PAGE_VIEW, NO_PURCHASE)

_FEW_MESSAGES = 100  # so many say nothing yet
_FEW_EVENTS = {NO_PAGE_VIEW: 1_000, NO_PURCHASE: 10_000}  # of a hundred clicks, about one is a purchase
_SHOWN = 10  # kinds
_MOST_KINDS = 1_000  # that are counted


class InputCheck:
    """Looks at what is read. Workers, which are threads, share one.

    A problem is told once, and is over with the first message that it does not hold for.

    Args:
        kinds: the names that the rules know.
        on_problem: called with a sentence, without its full stop, for each problem when it is found.
    """

    def __init__(self, kinds: Kinds, on_problem: Callable[[str], None] = lambda text: None) -> None:
        self._on_problem = on_problem
        self._wanted: dict[str, Collection[str]] = {NO_PAGE_VIEW: kinds.page_views, NO_PURCHASE: kinds.purchases}
        self._has_read = False
        self._unreadable: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self._texts: dict[str, str] = {}

    def look(self, batch: PolledBatch) -> None:
        """Takes what one poll has read."""
        if not self._has_read:
            self._look_for_rows(batch)
        if self._wanted:
            self._look_for_kinds(batch)

    def problems(self) -> dict[str, str]:
        """What is wrong now, by the problem's name: a sentence without its full stop."""
        return dict(self._texts)

    def has(self, problem: str) -> bool:
        """Whether there is a problem now, by its name."""
        return problem in self._texts

    def _look_for_rows(self, batch: PolledBatch) -> None:
        if batch.rows or batch.late:
            self._has_read = True
            self._texts.pop(UNREADABLE, None)
            return
        self._unreadable.update(record.reason for record in batch.unreadable)
        if self._unreadable.total() >= _FEW_MESSAGES:
            [(reason, _)] = self._unreadable.most_common(1)
            self._tell(
                UNREADABLE,
                f"none of the first {self._unreadable.total():,} messages can be read, most often because: {reason}; "
                "`python -m dataflow try --suggest` proposes a mapping for them",
            )

    def _look_for_kinds(self, batch: PolledBatch) -> None:
        events = Counter(row.event_type for row in batch.rows if type(row) is Event)
        for problem, names in list(self._wanted.items()):
            if not events.keys().isdisjoint(names):
                del self._wanted[problem]
                self._texts.pop(problem, None)
        if len(self._events) < _MOST_KINDS:
            self._events.update(events)
        count = self._events.total()
        for problem, names in self._wanted.items():
            if count >= _FEW_EVENTS[problem]:
                what = "page view" if problem == NO_PAGE_VIEW else "purchase"
                effect = "every session is suspicious" if problem == NO_PAGE_VIEW else "every amount is 0"
                entry = "page_views" if problem == NO_PAGE_VIEW else "purchases"
                seen = ", ".join(f"{kind} ({number:,})" for kind, number in self._events.most_common(_SHOWN))
                self._tell(
                    problem,
                    f"none of the first {count:,} events is a {what} ({', '.join(sorted(names)) or 'no kind is set'}), so "
                    f"{effect}; the kinds are {seen}; name them in {entry} of a mapping (docs/mapping.md)",
                )

    def _tell(self, problem: str, text: str) -> None:
        is_new = problem not in self._texts
        self._texts[problem] = text
        if is_new:
            self._on_problem(text)
