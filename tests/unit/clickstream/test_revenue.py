"""The revenue of a session: a sum that is exact, and the same in any order."""

from decimal import Decimal
from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.clickstream.revenue import NO_REVENUE, add_amount, revenue_json

AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, min_value="-1.7e308", max_value="1.7e308")


def total(*amounts: Decimal | str) -> Decimal:
    return reduce(add_amount, map(Decimal, amounts), NO_REVENUE)


@pytest.mark.parametrize(
    ("amounts", "revenue"),
    [
        pytest.param([], "0", id="nothing"),
        pytest.param(["19.90", "5", "0.10"], "25.00", id="as many decimals as the one with most"),
        pytest.param(["0.1", "0.2"], "0.3", id="what floats get wrong"),
        pytest.param(["1e3", "1E-3"], "1000.001", id="exponents are written out"),
        pytest.param(["12345678901234567890123456789", "0.01"], "12345678901234567890123456789.01", id="31 digits"),
        pytest.param(["-3", "1.5"], "-1.5", id="refunds"),
        pytest.param(["-0.0"], "0.0", id="no negative zero"),
        pytest.param(["1e300", "-1e300", "1e-30"], "0.000000000000000000000000000001", id="large ones that cancel"),
        pytest.param(["1e-31", "9e-31"], "0." + "0" * 30, id="decimals beyond the 30th are cut off"),
        pytest.param(["-0.0000000000000000000000000000019"], "-0.000000000000000000000000000001", id="towards zero"),
        pytest.param(["1e-999999999", "5"], "5." + "0" * 30, id="a tiny amount is no work"),
        pytest.param(["0e999999999"], "0", id="a zero with a huge exponent"),
    ],
)
def test_a_revenue_is_the_exact_sum_in_any_order(amounts, revenue):
    assert {revenue_json(total(*some)).decode() for some in permutations(amounts)} == {revenue}


@given(st.lists(AMOUNTS, max_size=6), st.lists(AMOUNTS, max_size=6))
def test_sums_of_parts_make_the_same_sum(some, others):
    together = revenue_json(add_amount(total(*some), total(*others)))
    assert together == revenue_json(add_amount(total(*others), total(*some))) == revenue_json(total(*some, *others))


@given(st.lists(st.tuples(st.integers(-(10**20), 10**20), st.integers(0, 30)), max_size=8))
def test_a_sum_is_that_of_whole_numbers_of_the_smallest_unit(amounts):
    units = sum(number * 10 ** (30 - decimals) for number, decimals in amounts)
    found = total(*(Decimal(number).scaleb(-decimals) for number, decimals in amounts))
    assert int(found.scaleb(30)) == units if abs(units) < 10**27 else True
    assert revenue_json(found).decode().replace(".", "").lstrip("-0") == str(
        abs(units) // 10 ** (30 - max((decimals for _, decimals in amounts), default=0))
    ).lstrip("0")
