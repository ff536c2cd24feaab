"""``convserve serve …`` and ``convserve train …``: run a half as ``python -m`` does.

Knows the names of the commands; knows nothing of their options. A half that lacks a package says
which extra installs it.
"""

import difflib
import runpy
import sys
from collections.abc import Sequence

COMMANDS = {
    "serve": ("serving", [], "serve the published models over HTTP"),
    "train": ("training", ["train"], "train recipes and publish the models"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Raises:
        SystemExit: the half has ended; the code is that of ``python -m serving`` or ``training``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    name, *options = words
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(
            f"convserve: No command named {name!r}.{hint} Known commands: {', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        return 2
    module, first, _ = COMMANDS[name]
    sys.argv = [f"convserve {name}", *first, *options]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _usage() -> str:
    lines = [f"  {name:8} {purpose}" for name, (_, _, purpose) in COMMANDS.items()]
    help_of_one = "\n`convserve COMMAND --help` prints the options of a command."
    return "\n".join(["usage: convserve COMMAND [OPTION …]\n", *lines, help_of_one])


if __name__ == "__main__":
    sys.exit(main())
