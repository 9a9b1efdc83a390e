"""Runs a command and says what it took, as a line of JSON: ``python -m bench.measured FILE COMMAND ...``.

A process of its own, and a small one, because Linux counts the memory of the process that starts another among that
of the one that it starts.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


def main() -> int:
    """Returns the command's exit code; what it took is in FILE."""
    file, *command = sys.argv[1:]
    began = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    took = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of all that have ended, and their own
    Path(file).write_text(
        json.dumps({"wall": took, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * _PEAK_UNIT})
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
