"""Values of command-line options. Each reader raises `argparse.ArgumentTypeError` for a text that it does not accept."""

import argparse
import math
from pathlib import Path

_MAX_SECONDS = 1_000_000_000  # thirty years, as for the settings


def seconds(text: str) -> float:
    """A duration in seconds, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"not a number of seconds from 0 to {_MAX_SECONDS:,}: {text!r}")
    return number


def whole_number(text: str) -> int:
    """A whole number; its range is checked where it is used."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a whole number: {text!r}") from None


def directory(text: str) -> Path:
    """The name of a directory; an empty one would mean the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("the name of the directory is empty")
    return Path(text)
