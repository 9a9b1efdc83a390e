"""The job's log on standard error: one line an event of its life, as text or as a JSON object.

Errors go the same way, so that a reader of the log needs to know only one form.
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
    """Starts logging to standard error; unknown values are taken for the defaults.

    Args:
        form: "text", "json" (an object a line), or "auto": text on a terminal, otherwise JSON.
        level: the least severe level that is logged: "info", "warning" or "error".
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
    """Names what a line tells of, for machines: ``log.info("stopped", extra=event("stopped"))``."""
    return {"event": name}


def fail(error: Exception | str) -> NoReturn:
    """Ends a program that has not begun yet with one line."""
    log.error("%s", error, extra=event("failed"))
    sys.exit(1)
