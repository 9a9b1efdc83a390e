"""What the job says on standard error: one line an event of its life, for people or for machines.

On a terminal a line is ``visits: `` and a sentence; elsewhere it is a JSON object. Errors take the same road, so that
whoever reads the lines need not know two forms.
"""

import json
import logging
import sys
from datetime import datetime, timezone
from typing import NoReturn

from dataflow.runtime.settings import PREFIX, variables

log = logging.getLogger("visits")

_LEVELS = ("info", "warning", "error")
_TEXT = "visits: %(message)s"


def start() -> None:
    """From now on lines are written, as the environment says; a wrong value there is told when settings are read."""
    told = variables()
    form = told.get(PREFIX + "LOG_FORMAT", "auto")
    level = told.get(PREFIX + "LOG_LEVEL", "info")
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
