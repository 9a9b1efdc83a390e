"""The README says what the code does."""

import re
from pathlib import Path

from dataflow.runtime.settings import PREFIX, Settings

README = (Path(__file__).parents[3] / "README.md").read_text()


def _row(name: str, default: object, meaning: str) -> str:
    shown = {None: "", True: "1", False: "0"}.get(default, str(default)) if not isinstance(default, dict) else ""
    return f"| `{name}` | {f'`{shown}`' if shown else ''} | {meaning} |"


def test_the_readme_has_every_setting_with_its_default_and_meaning_and_no_other() -> None:
    expected = [
        _row(PREFIX + name.upper() + ("_*" if name == "kafka" else ""), field.default, field.description)
        for name, field in Settings.model_fields.items()
    ]
    assert [line for line in README.splitlines() if line.startswith("| `VISITS_")] == expected


def test_every_file_that_the_readme_names_is_there() -> None:
    table = README[README.index("## Reading and changing the code") :]
    named = re.findall(r"`((?:rules/|kafka/)?\w*(?:\.py)?)`", "\n".join(re.findall(r"^\| (.*?) \|", table, re.M)))
    assert len(named) > 10
    for name in named:
        assert (Path(__file__).parents[3] / "dataflow" / name).exists(), name
