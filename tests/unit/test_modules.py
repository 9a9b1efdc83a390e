"""Each module of the package has a unit test, or a reason why not."""

import ast

from support.paths import ROOT

INTEGRATION = "needs a broker, or a process of its own: tests/integration"
REASONS = {
    "dataflow.demo": "an earlier name of dataflow.tools.demo",
    "dataflow.kafka.embedded": INTEGRATION,
    "dataflow.kafka.messages": "types, which mypy checks",
    "dataflow.kafka.replication_probe": INTEGRATION,
    "dataflow.observability.http": "started by health and by the dashboard's server, in the tests of both",
    "dataflow.runtime.command": INTEGRATION,
    "dataflow.runtime.errors": "ends its process, so its test starts one and names the module in a text",
    "dataflow.runtime.job": INTEGRATION,
    "dataflow.runtime.stored_states": "needs a store that the engine wrote: tests/integration/test_upgrade.py",
    "dataflow.tools.demo": "runs for half a minute; `make demo` checks itself",
    "dataflow.tools.explain.command": INTEGRATION,
    "dataflow.tools.redrive.command": INTEGRATION,
    "dataflow.tools.redrive.sender": INTEGRATION,
    "dataflow.verify": "an earlier name of dataflow.tools.verify",
}


def modules() -> set[str]:
    files = (ROOT / "dataflow").rglob("*.py")
    names = (".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    return {name for name in names if not name.endswith("__init__")}


def imported() -> set[str]:
    """What unit tests, and the property tests of pure code, import themselves."""
    found = set()
    for folder in ("unit", "property"):
        for file in (ROOT / "tests" / folder).rglob("test_*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_each_module_is_imported_by_a_unit_test_or_has_a_reason_not_to_be():
    without = modules() - imported() - {"dataflow.__main__"}  # what starts the rest is tested as a program
    assert sorted(without) == sorted(REASONS)
