"""``python -m dataflow``, installed as ``visits``: runs the job, or one of the commands beside it.

A command is imported when it is asked for: `explain` and `redrive` load neither the job nor its metrics and page.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from dataflow.tools.command_line import COMMANDS, list_of_commands, no_such_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the job or a command.

    Args:
        arguments: the command line without the program's name; None: that of this process.

    Returns:
        The exit code: 2 if there is no such command, otherwise what the job or the command returns.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else ""
    if name in COMMANDS:
        return int(import_module(COMMANDS[name].module).main(arguments[1:]))
    if name and not name.startswith("-"):
        print(f"visits: {no_such_command(name)}", file=sys.stderr)
        return 2
    job = import_module("dataflow.runtime.command")
    return int(job.main(arguments, list_of_commands()))


if __name__ == "__main__":
    sys.exit(main())
