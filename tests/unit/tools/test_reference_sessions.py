"""The reference's own rows of `sessions` are those that the job writes."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from dataflow.clickstream.kinds import DEFAULT_KINDS
from dataflow.clickstream.records import Event
from dataflow.clickstream.revenue import NO_REVENUE, add_amount
from dataflow.clickstream.session_summary import encode_session
from dataflow.clickstream.sessions import ClosedSession
from dataflow.tools import reference_sessions

TIMES = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
KINDS = st.sampled_from(["page-view", "purchase", "click", "sürprise", 'q"\n\x7f\x01', "x" * 100, "x" * 101]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=2
)
AMOUNTS = st.decimals(
    allow_nan=False, allow_infinity=False, min_value="-1.7e308", max_value="1.7e308"
) | st.sampled_from([Decimal(text) for text in ("19.90", "-0.0", "1e300", "1e-999999999", "0e-50", "-1e-31")])


@given(
    st.lists(st.tuples(TIMES, KINDS, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=150),
    st.lists(AMOUNTS, max_size=5),
    st.sampled_from([None, 1, 2]),
)
def test_both_give_the_same_row(events, amounts, suspicion):
    events.sort(key=lambda event: event[0])
    revenue = NO_REVENUE
    for amount in amounts:
        revenue = add_amount(revenue, amount)
    rows = [Event(time, b"7", b"{}", 0, page, kind) for time, kind, page in events]
    expected = reference_sessions.row(
        "abc",
        "7",
        [reference_sessions.Event(Fraction(time, 10**6), kind, str(page)) for time, kind, page in events],
        "9.50",
        amounts,
        suspicion,
        {"page-view"},
        {"purchase"},
    )
    session = ClosedSession(b"7", b"abc", rows, b"9.50", revenue, suspicion)
    assert encode_session(session, DEFAULT_KINDS).decode() == expected
