"""The library with rules of another shop: `examples/trades.py` and docs/library.md."""

import re

from bytewax.testing import TestingSink, run_main
from support.paths import ROOT
from support.programs import Programs

from examples.trades import FILES, build, polls

DOCS = ROOT / "docs" / "library.md"


def test_the_example_writes_what_its_text_says() -> None:
    out: list[str] = []
    run_main(build(list(polls(FILES)), TestingSink(out)))
    assert sorted(out) == [
        "ACME 0-44 s: 4 trades, 700 shares, 8110.00",
        "BOLT 100-100 s: 1 trades, 1 shares, 90.00",
        "BOLT 14 s: too late",
        "BOLT 14-43 s: 2 trades, 10 shares, 693.00, 1 without a price",
    ]


def test_the_example_runs_on_two_workers(programs: Programs) -> None:
    assert programs.run("bytewax.run", "examples.trades:flow", "-w", "2") == (0, [])


def test_every_import_in_the_library_guide_works() -> None:
    text = DOCS.read_text()
    imports = re.findall(r"^from (dataflow[\w.]*) import ([\w, ]+)$", text, re.MULTILINE)
    assert len(imports) > 5
    for module, names in imports:
        loaded = __import__(module, fromlist=["_"])
        for name in names.split(", "):
            assert hasattr(loaded, name), f"{module}.{name}"
