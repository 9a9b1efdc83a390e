"""The documents say what the code does."""

import re

import pytest
from support.logs import EVENTS, PURCHASES, log, run
from support.paths import ROOT

from dataflow.runtime.settings import PREFIX, Settings

DOCS = [ROOT / "README.md", ROOT / "bench/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _row(name: str, default: object, meaning: str) -> str:
    shown = {None: "", True: "1", False: "0"}.get(default, str(default)) if not isinstance(default, dict) else ""
    return f"| `{name}` | {f'`{shown}`' if shown else ''} | {meaning} |"


def test_table_has_every_setting_with_default_and_meaning_and_no_other() -> None:
    expected = [
        _row(PREFIX + name.upper() + ("_*" if name == "kafka" else ""), field.default, field.description)
        for name, field in Settings.model_fields.items()
    ]
    first_table = (ROOT / "docs/settings.md").read_text().split("\n\n## ")[0]
    assert [line for line in first_table.splitlines() if line.startswith("| `VISITS_")] == expected


def test_architecture_lists_every_module_once_and_no_other() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", text, re.MULTILINE)
    modules = [path.relative_to(ROOT / "dataflow").as_posix() for path in (ROOT / "dataflow").rglob("*.py")]
    assert sorted(listed) == sorted(name for name in modules if not name.endswith("__init__.py"))


def test_readme_shows_the_rows_that_the_job_writes() -> None:
    text = (ROOT / "README.md").read_text()
    rows = {
        topic: row.encode()
        for topic, row in re.findall(
            r"^(user-events|purchases|visits|suspicious-visits|sessions) +({.*})$", text, re.MULTILINE
        )
    }
    answer = run({EVENTS: log(rows["user-events"]), PURCHASES: log(rows["purchases"])}).answer()
    assert list(answer.visits) == [(b"7", rows["visits"], ())]
    assert list(answer.suspicious_visits) == [(b"7", rows["suspicious-visits"], ())]
    assert list(answer.sessions) == [(b"7", rows["sessions"], ())]


def _anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_to_files_and_headings_lead_somewhere(document) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target.read_text()), link


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_of_the_project_that_are_named_are_there(document) -> None:
    for name in re.findall(r"`((?:dataflow|tests|bench|ops|docs|examples|scripts)/[\w./-]+)`", document.read_text()):
        assert (ROOT / name).exists(), name
