"""The log's level."""

import logging

from dataflow.observability import logs


def test_log_level_drops_lower_events(monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    logs.start("json", "warning")
    assert not logging.getLogger("visits").isEnabledFor(logging.INFO)
    root.setLevel(level)
