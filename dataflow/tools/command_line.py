"""What the commands beside the job have in common on their command lines. Loads nothing but the standard library."""

import argparse
import difflib
import re
from typing import NamedTuple, NoReturn


class Command(NamedTuple):
    """A subcommand of ``python -m dataflow``: the module whose `main(arguments)` runs it, and one line of help."""

    module: str
    help: str


COMMANDS = {
    "demo": Command("dataflow.tools.demo", "run a shop and the job on an embedded broker for half a minute, and check"),
    "try": Command("dataflow.tools.try_mapping.command", "show what a mapping makes of your messages, or propose one"),
    "verify": Command("dataflow.tools.verify", "compare the output topics with a batch computation, row by row"),
    "explain": Command("dataflow.tools.explain.command", "say why a session or a row came out as it did"),
    "redrive": Command("dataflow.tools.redrive.command", "list dead letters and late events, and send them again"),
}


def list_of_commands() -> str:
    """The commands for ``--help``, one a line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["commands:", *lines, "", "Without a command, the job runs. Each command has its own --help."],
    )


def no_such_command(name: str) -> str:
    """One line for a command that does not exist, with the closest one that does."""
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    guess = f"; did you mean {near[0]}?" if near else "."
    return f"there is no command {name!r}{guess} Commands are {', '.join(COMMANDS)}; without one, the job runs"


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, and prints its description and epilog unchanged."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Ends the program with the message and exit code 2; the usage is in ``--help``."""
        self.exit(2, f"visits: {message}\n")


class MessageAddress(NamedTuple):
    """The place of a message in Kafka, or of one of the rows in it."""

    topic: str
    partition: int
    offset: int
    part: int | None = None  # of a message that holds several rows

    def __str__(self) -> str:
        where = f"{self.topic}/{self.partition}/{self.offset}"
        return where if self.part is None else f"{where}/{self.part}"


def message_address(text: str) -> MessageAddress:
    """Reads "topic/partition/offset". Raises argparse.ArgumentTypeError for anything else."""
    found = re.fullmatch(r"([a-zA-Z0-9._-]+)/([0-9]{1,9})/([0-9]{1,18})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"not a message, topic/partition/offset: {text!r}")
    return MessageAddress(found[1], int(found[2]), int(found[3]))


def row_address(text: str) -> MessageAddress:
    """Reads "topic/partition/offset", or "topic/partition/offset/part". Raises argparse.ArgumentTypeError otherwise."""
    found = re.fullmatch(r"([^/]+/[^/]+/[^/]+)/([0-9]{1,4})", text)
    if found is None:
        return message_address(text)
    return message_address(found[1])._replace(part=int(found[2]))
