"""The job's log on standard error: one line per event, as text or as a JSON object.

Errors use the same format, so that a log reader has to know only one.
"""

import json
import logging
import sys
from datetime import datetime, timezone
from typing import NoReturn

log = logging.getLogger("visits")

_LEVELS = ("info", "warning", "error")
_TEXT = "visits: %(message)s"


def start(form: str, level: str) -> None:
    """Starts logging to standard error. Unknown values mean "auto" and "info".

    Args:
        form: "text", "json" (one object per line), or "auto": text on a terminal, otherwise JSON.
        level: the lowest level that is logged: "info", "warning" or "error".
    """
    as_text = form == "text" or form != "json" and sys.stderr.isatty()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_TEXT) if as_text else _Json())
    logging.basicConfig(handlers=[handler], level=level.upper() if level in _LEVELS else logging.INFO)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def event(name: str) -> dict[str, str]:
    """The `extra` that names a line's event in JSON logs: ``log.info("stopped", extra=event("stopped"))``."""
    return {"event": name}


def fail(error: Exception | str) -> NoReturn:
    """Logs an error in one line and exits with code 1. For programs that have not started their work."""
    log.error("%s", error, extra=event("failed"))
    sys.exit(1)
