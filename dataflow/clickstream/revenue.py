"""Exact sums of amounts: the revenue of a session.

A sum does not depend on the order in which amounts are added, so the parts of sessions that merge can be added, too. An
amount counts with its first `DECIMALS` decimals. That bounds the work for amounts such as 1e-999999; amounts are below
1.8e308, so a sum has at most some 340 digits.
"""

from decimal import ROUND_DOWN, Context, Decimal

DECIMALS = 30  # of an amount; further ones are cut off
NO_REVENUE = Decimal(0)

_SMALLEST = Decimal((0, (1,), -DECIMALS))
_EXACT = Context(prec=1_000, rounding=ROUND_DOWN)  # many more digits than any sum has


def add_amount(revenue: Decimal, amount: Decimal) -> Decimal:
    """The sum, with as many decimals as the one of the two that has more."""
    if int(amount.as_tuple().exponent) < -DECIMALS:
        amount = amount.quantize(_SMALLEST, context=_EXACT)
    return _EXACT.add(revenue, amount)


def revenue_json(revenue: Decimal) -> bytes:
    """The number as JSON, without an exponent."""
    return f"{revenue:f}".encode()
