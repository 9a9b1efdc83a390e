"""``python -m dataflow.verify``: an earlier name of ``python -m dataflow verify``."""

import sys

from dataflow.tools.verify import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
