"""The library with rules of another shop: `examples/trades.py` against a slow and obvious computation."""

import json

from bytewax.testing import TestingSink
from hypothesis import given
from hypothesis import strategies as st
from support.engine import Engine

from dataflow.streaming.time import SECOND
from dataflow.tools.reference_pairing import Event, Row, pair
from examples import trades
from examples.trades import build, polls

times = st.integers(0, 400).map(lambda quarters: quarters / 4)
stocks = st.sampled_from(["A", "B"])
a_trade = st.fixed_dictionaries({"stock": stocks, "time": times, "shares": st.integers(1, 9)})
a_quote = st.fixed_dictionaries({"stock": stocks, "time": times, "price": st.integers(1, 99)})
logs = st.fixed_dictionaries(
    {"trades/0": st.lists(a_trade), "trades/1": st.lists(a_trade), "quotes/0": st.lists(a_quote)}
)


@given(logs, st.integers(0, 60))
def test_example_equals_an_obvious_computation_also_after_a_resume(rows: dict, stop: int) -> None:
    files = {name: "\n".join(map(json.dumps, lines)).encode() or b"\n" for name, lines in rows.items()}
    out: list[str] = []
    engine = Engine(build([], TestingSink(out)))
    for number, poll in enumerate(polls(files)):
        if number == stop:
            engine.resume(engine.snapshot())
        engine.feed("trades.read", poll)
    assert sorted(out) == sorted(obvious(rows))


def obvious(rows: dict[str, list[dict]]) -> list[str]:
    on_time: dict[str, list[dict]] = {name: [] for name in rows}
    lines = []
    for name, listed in rows.items():
        mark = float("-inf")
        for row in listed:
            if row["time"] >= mark - trades.LATENESS / SECOND:
                on_time[name].append(row)
            else:
                lines.append(f"{row['stock']} {row['time']:g} s: too late")
            mark = max(mark, row["time"])
    by_position = sorted(
        (place, number, row)
        for number, name in enumerate(("trades/0", "trades/1"))
        for place, row in enumerate(rows[name])
        if any(row is each for each in on_time[name])
    )
    prices = priced([row for _, _, row in by_position], on_time["quotes/0"])
    made = sorted(on_time["trades/0"] + on_time["trades/1"], key=lambda row: (row["stock"], row["time"]))
    bursts: list[list[dict]] = []
    for row in made:
        last = bursts[-1][-1] if bursts else None
        if last is None or last["stock"] != row["stock"] or row["time"] - last["time"] > trades.GAP / SECOND:
            bursts.append([])
        bursts[-1].append(row)
    return lines + [told(burst, prices) for burst in bursts]


def told(burst: list[dict], prices: dict[int, int]) -> str:
    worth = sum(prices[id(trade)] * trade["shares"] for trade in burst if id(trade) in prices)
    unknown = sum(id(trade) not in prices for trade in burst)
    shares = sum(trade["shares"] for trade in burst)
    return (
        f"{burst[0]['stock']} {burst[0]['time']:g}-{burst[-1]['time']:g} s: {len(burst)} trades, {shares} shares, "
        f"{worth:.2f}" + (f", {unknown} without a price" if unknown else "")
    )


def priced(trades_on_time: list[dict], quotes: list[dict]) -> dict[int, int]:
    """The price of each trade that has one; of trades at the same time the last one in its file is the first to get one."""
    prices = {}
    for stock in ("A", "B"):
        made = [trade for trade in trades_on_time if trade["stock"] == stock]
        given = [quote for quote in quotes if quote["stock"] == stock]
        pairs = pair(
            [Event(trade["time"], 0) for trade in made],
            [Row(quote["time"], quote["price"], b"", b"", (number, 0), 0) for number, quote in enumerate(given)],
            trades.WINDOW / SECOND,
        )
        prices |= {id(made[trade]): given[quote]["price"] for trade, quote in pairs}
    return prices
