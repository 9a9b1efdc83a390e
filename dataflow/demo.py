"""``python -m dataflow.demo``: an earlier name of ``python -m dataflow demo``."""

import sys

from dataflow.tools.demo import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
