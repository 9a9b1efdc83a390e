"""Progress where standard error is no terminal: a line every few seconds."""

import time

from dataflow.tools.progress_bar import ProgressBar


def test_without_a_terminal_a_line_is_printed_once_the_interval_is_over(capsys, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with ProgressBar(line_interval_s=5) as progress:
        progress.begin("visits")
        progress(1, 10)
        now += 5
        progress(2_000, 10_000)
        progress(3_000, 10_000)
        progress.print("done")
    assert capsys.readouterr().err.splitlines() == ["reading visits: 2,000 of 10,000 rows", "done"]
