"""The command line of a benchmark, and its table: what was promised, measured, and kept.

Knows the pages of the documentation; knows nothing of what is measured.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from bench.reporting.figures import between, table
from bench.rig.environment import require
from bench.rig.service import ROOT

PAGE = ROOT / "docs/performance.md"
ACCURACY = ROOT / "docs/accuracy.md"


@dataclass(frozen=True)
class Promise:
    """One row of the table."""

    what: str
    promised: str
    measured: str
    kept: bool = True


Measure = Callable[[argparse.Namespace], tuple[str, list[Promise]]]


def fact(what: str, measured: str) -> Promise:
    """Return a row that promises nothing."""
    return Promise(what, "", measured)


def none_of(what: str, count: int, total: str = "") -> Promise:
    """Return a row that promises that nothing of the kind was counted."""
    return Promise(what, "0", f"{count}{total}", not count)


def nothing(what: str, found: str) -> Promise:
    """Return a row that promises that nothing of the kind was found."""
    return Promise(what, "none", found or "none", not found)


def equal(what: str, form: str, expected: Sequence[float], found: Sequence[float]) -> Promise:
    """Return a row that promises exact numbers, formatted by ``form``."""
    return Promise(what, form.format(*expected), form.format(*found), [*expected] == [*found])


def parser(
    module: str, about: str | None, page: Path | None = PAGE, **options: Any
) -> argparse.ArgumentParser:
    """Return the command line of ``bench.<module>``, with ``options`` and ``--page``.

    An option is a tuple of its default, which sets its type, or a function that returns it; a help
    text; and perhaps the allowed values, which the default of an option with several texts holds.
    A dictionary holds the arguments of argparse for a positional argument.
    """
    made = argparse.ArgumentParser(prog=f"python -m bench.{module}", description=about)
    if page:
        options["page"] = (page, "page that receives the tables")
    for name, option in options.items():
        if isinstance(option, dict):
            made.add_argument(name, **option)
            continue
        default, text, *allowed = option
        default = default() if callable(default) else default
        several = isinstance(default, (list, tuple))
        one = default[0] if several else default
        made.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(one),
            nargs="*" if several else None,
            choices=allowed or (default if several and isinstance(one, str) else None),
            default=default,
            help=f"{text} (%(default)s)",
        )
    return made


def put(page: Path, name: str, text: str) -> None:
    """Print a text, and write it into its place on the page."""
    print(text)
    page.write_text(between(page.read_text("utf-8"), name, text), "utf-8")


def report(promises: Sequence[Promise], *, page: Path, name: str, above: str) -> int:
    """Print the table and write it into the page; return 1 if a promise was broken."""
    rows = [
        [each.what, each.promised, each.measured, "yes" if each.kept else "**no**"]
        for each in promises
    ]
    text = f"{above}\n\n{table(['What', 'Promised', 'Measured', 'Kept'], rows)}"
    put(page, name, text)
    return 0 if all(each.kept for each in promises) else 1


def benchmark(
    page: Path = PAGE,
    *,
    programs: Sequence[str] = (),
    packages: Sequence[str] = (),
    **options: Any,
) -> Callable[[Measure], Callable[..., int]]:
    """Make the command of a module from a function that returns a text and the rows below it.

    The command requires programs and packages, and writes the table into the section of its page
    that is named as the module; it returns 1 if a promise was broken.
    """

    def decorate(measure: Measure) -> Callable[..., int]:
        module = sys.modules[measure.__module__]
        name = getattr(module.__spec__, "name", "").removeprefix("bench.")  # not "__main__"

        @wraps(measure)
        def main(arguments: Sequence[str] | None = None) -> int:
            found = parser(name, module.__doc__, page, **options).parse_args(arguments)
            require(programs=programs, packages=packages)
            above, rows = measure(found)
            return report(rows, page=found.page, name=name.rpartition(".")[2], above=above)

        return main

    return decorate
