"""The clock, the join and the sessions are of use with other rules too: `examples/trades.py`, and docs/library.md."""

import json
import re
from pathlib import Path

from bytewax.testing import TestingSink, run_main
from engine import Engine
from hypothesis import given
from hypothesis import strategies as st
from programs import Programs

from dataflow.streaming.time import SECOND
from examples import trades
from examples.trades import FILES, build, polls

DOCS = Path(__file__).parent.parent / "docs" / "library.md"


def test_the_example_says_what_its_text_says(tmp_path: Path) -> None:
    out: list[str] = []
    run_main(build(list(polls(FILES)), TestingSink(out)))
    assert sorted(out) == [
        "ACME 0-44 s: 4 trades, 700 shares, 8110.00",
        "BOLT 100-100 s: 1 trades, 1 shares, 90.00",
        "BOLT 14 s: too late",
        "BOLT 14-43 s: 2 trades, 10 shares, 693.00, 1 without a price",
    ]


def test_the_example_runs_as_it_says_it_does(tmp_path: Path) -> None:
    programs = Programs(tmp_path)
    try:
        status, lines = programs.run("bytewax.run", "examples.trades:flow", "-w", "2")
    finally:
        programs.kill_all()
    assert (status, lines) == (0, [])


times = st.integers(0, 400).map(lambda quarters: quarters / 4)
stocks = st.sampled_from(["A", "B"])
a_trade = st.fixed_dictionaries({"stock": stocks, "time": times, "shares": st.integers(1, 9)})
a_quote = st.fixed_dictionaries({"stock": stocks, "time": times, "price": st.integers(1, 99)})
logs = st.fixed_dictionaries(
    {"trades/0": st.lists(a_trade), "trades/1": st.lists(a_trade), "quotes/0": st.lists(a_quote)}
)


@given(logs, st.integers(0, 60))
def test_its_answer_is_that_of_a_slow_and_obvious_computation_also_after_a_resume(rows: dict, stop: int) -> None:
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
    quotes = on_time["quotes/0"]
    made = sorted(on_time["trades/0"] + on_time["trades/1"], key=lambda row: (row["stock"], row["time"]))
    bursts: list[list[dict]] = []
    for row in made:
        last = bursts[-1][-1] if bursts else None
        if last is None or last["stock"] != row["stock"] or row["time"] - last["time"] > trades.GAP / SECOND:
            bursts.append([])
        bursts[-1].append(row)
    return lines + [told(burst, quotes) for burst in bursts]


def told(burst: list[dict], quotes: list[dict]) -> str:
    worth, unknown = 0.0, 0
    for trade in burst:
        near = [
            (abs(quote["time"] - trade["time"]), -quote["time"], -quote["price"])
            for quote in quotes
            if quote["stock"] == trade["stock"] and abs(quote["time"] - trade["time"]) <= trades.WINDOW / SECOND
        ]
        if near:
            worth -= min(near)[2] * trade["shares"]
        else:
            unknown += 1
    shares = sum(trade["shares"] for trade in burst)
    return (
        f"{burst[0]['stock']} {burst[0]['time']:g}-{burst[-1]['time']:g} s: {len(burst)} trades, {shares} shares, "
        f"{worth:.2f}" + (f", {unknown} without a price" if unknown else "")
    )


def test_every_name_in_the_description_is_there_to_be_imported() -> None:
    text = DOCS.read_text()
    imports = re.findall(r"^from (dataflow[\w.]*) import ([\w, ]+)$", text, re.M)
    assert len(imports) > 5
    for module, names in imports:
        loaded = __import__(module, fromlist=["_"])
        for name in names.split(", "):
            assert hasattr(loaded, name), f"{module}.{name}"
