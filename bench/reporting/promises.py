"""The command line of a benchmark, and its table: what was promised, measured, and kept.

Knows the pages of the documentation; knows nothing of what is measured.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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


def parser(
    module: str, about: str | None, page: Path | None = PAGE, **numbers: tuple[float, str]
) -> argparse.ArgumentParser:
    """Return the command line of ``bench.<module>``: options with a number, and ``--page``.

    ``numbers`` maps the name of an option to its default and its help.
    """
    made = argparse.ArgumentParser(prog=f"python -m bench.{module}", description=about)
    for name, (default, text) in numbers.items():
        text = f"{text} ({default:g})"
        made.add_argument(f"--{name}", type=type(default), default=default, help=text)
    if page:
        text = f"page that receives the tables (docs/{page.name})"
        made.add_argument("--page", type=Path, default=page, help=text)
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
