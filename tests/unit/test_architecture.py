"""What the packages of `dataflow` may know of each other; the rules are in pyproject.toml, [tool.importlinter]."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def loaded_by(module: str) -> set[str]:
    """The modules that a fresh Python has loaded after importing one."""
    done = run("-c", f"import sys, {module}\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_imports_point_one_way() -> None:
    pytest.importorskip("importlinter")
    done = run("-c", "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_library_loads_no_metrics_settings_kafka_or_console() -> None:
    loaded = loaded_by("dataflow.streaming.operators")
    assert loaded & {"prometheus_client", "pydantic", "confluent_kafka", "rich", "dataflow.clickstream"} == set()


@pytest.mark.parametrize("command", ["explain", "redrive"])
def test_a_command_beside_the_job_loads_neither_it_nor_its_page(command: str) -> None:
    loaded = loaded_by(f"dataflow.tools.{command}.command")
    assert loaded & {"dataflow.dashboard", "dataflow.runtime.job"} == set()


def test_the_command_line_itself_loads_only_the_standard_library() -> None:
    loaded = loaded_by("dataflow.tools.command_line")
    assert loaded & {"prometheus_client", "pydantic", "confluent_kafka", "rich", "msgspec"} == set()


def names_of_the_engine(source: str) -> set[str]:
    """Names that a module takes from Bytewax: what it imports, and the attributes of `op`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "bytewax":
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "op":
            names.add(node.attr)
    return names


def test_docs_engine_lists_all_that_is_used_of_bytewax() -> None:
    text = (ROOT / "docs" / "engine.md").read_text()
    rows = re.findall(r"^\| `bytewax\.\w+` \| (.*?) \|", text, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    used = {name for path in (ROOT / "dataflow").rglob("*.py") for name in names_of_the_engine(path.read_text())}
    assert listed == used
