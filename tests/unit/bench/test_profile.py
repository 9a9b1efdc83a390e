"""The stage that a sample of the profile counts for."""

import ast
from pathlib import Path

import pytest

from bench.profile import CLOSE, ENGINE, FILES, FUNCTIONS, JOIN, SESSION, SHARD, SNAPSHOT, SNAPSHOTTING, count, stage

ROOT = Path(__file__).parents[3]
ENGINE_STACK = "<module> (bench/profiled.py);main (bench/profiled.py);drive (bench/profiled.py)"


def functions(file: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("file", FILES)
def test_file_of_a_stage_is_there(file):
    assert (ROOT / file).is_file()


@pytest.mark.parametrize(("file", "function"), FUNCTIONS)
def test_function_of_a_stage_is_there(file, function):
    assert function in functions(file)


@pytest.mark.parametrize("function", sorted(SNAPSHOTTING))
def test_function_that_snapshots_is_there(function):
    assert any(function in functions(str(file)) for file in (ROOT / "dataflow").rglob("*.py"))


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ([], ENGINE),
        (["shim_mapper (bytewax/operators/__init__.py)"], ENGINE),
        (["match (dataflow/streaming/operators.py)", "add (dataflow/streaming/interval_join.py)"], JOIN),
        (["visits (dataflow/clickstream/outputs.py)", "encode_visits (dataflow/clickstream/serde.py)"], CLOSE),
        (["SessionWindows.add (dataflow/streaming/session_windows.py)"], SESSION),
        (["sharder.<locals>.shard.<locals>.<listcomp> (dataflow/streaming/sharding.py)"], SHARD),
        (["shard (dataflow/streaming/sharding.py)", "<listcomp> (dataflow/streaming/sharding.py)"], SHARD),
        (["snapshot (dataflow/kafka/sink.py)", "flush (dataflow/kafka/delivery.py)"], SNAPSHOT),
    ],
)
def test_innermost_function_decides_unless_a_snapshot_is_taken(inside, expected):
    assert stage(";".join([ENGINE_STACK, *inside])) == expected


def test_only_the_engines_thread_counts():
    others = "_run (dataflow/kafka/end_offset_poller.py) 100\nmain (bench/profiled.py) 9\n"
    raw = f"{ENGINE_STACK} 3\n{ENGINE_STACK};match (dataflow/streaming/operators.py) 4\n{others}"
    assert count(raw) == {ENGINE: 3, JOIN: 4}
