"""The balance of the purchase rows: how many there are, with which sum of amounts, and in which place each is."""

from dataclasses import dataclass, field
from decimal import Context, Decimal

MATCHED = "matched"
NO_EVENT = "no event in its time"
OTHER_ROW = "another row was taken"
LATE = "late"
UNREADABLE = "unreadable"

_DECIMALS = 400  # of an amount; further ones are cut off. Amounts are below 1.8e308, so sums of these are exact
_SMALLEST = Decimal((0, (1,), -_DECIMALS))
_CONTEXT = Context(prec=1_000)


@dataclass
class Balance:
    """Where the rows of the purchases topic are."""

    rows: int = 0  # messages in the topic
    amount: Decimal = Decimal(0)  # the sum of those that can be read
    places: dict[str, tuple[int, Decimal]] = field(
        default_factory=lambda: dict.fromkeys((MATCHED, NO_EVENT, OTHER_ROW, LATE, UNREADABLE), (0, Decimal(0)))
    )  # number and sum of the rows in each: matched, unmatched by reason, unreadable

    @property
    def is_even(self) -> bool:
        """Whether the places hold as many rows as the topic, with the same sum."""
        rows, amount = 0, Decimal(0)
        for part in self.places.values():
            rows += part[0]
            amount = _CONTEXT.add(amount, part[1])
        return (rows, amount) == (self.rows, self.amount)

    def add(self, amount: Decimal | int | None) -> None:
        """Counts a row of the topic; None: it cannot be read."""
        self.rows += 1
        if amount is not None:
            self.amount = _CONTEXT.add(self.amount, _cut(amount))

    def put(self, place: str, amount: Decimal | int = 0) -> None:
        """Counts a row in its place."""
        rows, total = self.places[place]
        self.places[place] = rows + 1, _CONTEXT.add(total, _cut(amount))


def _cut(amount: Decimal | int) -> Decimal:
    exact = Decimal(amount)
    exponent = exact.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= -_DECIMALS:
        return exact
    return _CONTEXT.quantize(exact, _SMALLEST)
