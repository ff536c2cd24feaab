"""The command line of a benchmark, and its table: what was promised, measured, and kept.

Knows the pages of the documentation; knows nothing of what is measured.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.reporting.figures import between, table
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
    module: str, about: str | None, page: Path | None = PAGE, **options: tuple[Any, str]
) -> argparse.ArgumentParser:
    """Return the command line of ``bench.<module>``, with ``options`` and ``--page``.

    Each option has a default, which sets its type, and a help text. The default of an option with
    several texts holds all allowed ones.
    """
    made = argparse.ArgumentParser(prog=f"python -m bench.{module}", description=about)
    if page:
        options["page"] = (page, "page that receives the tables")
    for name, (default, text) in options.items():
        several = list(default) if isinstance(default, (list, tuple)) else []
        made.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(several[0] if several else default),
            nargs="*" if several else None,
            choices=several if several and isinstance(several[0], str) else None,
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
