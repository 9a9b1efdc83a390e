"""The log: which events are left out."""

import logging

from dataflow.observability import logs


def test_the_level_says_what_is_left_out(monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    logs.start("json", "warning")
    assert not logging.getLogger("visits").isEnabledFor(logging.INFO)
    root.setLevel(level)
