"""What the commands beside the job have in common on their command lines."""

import argparse
import re
from typing import NamedTuple, NoReturn


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, and prints its texts as they are."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, epilog=epilog, formatter_class=form, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"visits: {message}\n")  # --help has the usage


class MessageAddress(NamedTuple):
    """A message."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def message_address(text: str) -> MessageAddress:
    """Reads "topic/partition/offset"."""
    found = re.fullmatch(r"([a-zA-Z0-9._-]+)/([0-9]{1,9})/([0-9]{1,18})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"not a message, topic/partition/offset: {text!r}")
    return MessageAddress(found[1], int(found[2]), int(found[3]))
