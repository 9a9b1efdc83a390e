"""What the measurements take on their command lines."""

import argparse


def whole(text: str) -> int:
    """A number of things, at least one."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def case(text: str) -> tuple[int, float]:
    """USERS:RATE, both above 0."""
    users, _, rate = text.partition(":")
    try:
        found = whole(users), float(rate)
    except (ValueError, argparse.ArgumentTypeError):
        found = 0, 0.0
    if not 0 < found[1] < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not USERS:RATE, as in 20:3")
    return found
