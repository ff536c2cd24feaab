"""What was promised, what was measured, and whether it held: a table, and an exit code.

Knows the page of the documentation; knows nothing of what is measured.
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
    """One line of the table."""

    what: str
    promised: str
    measured: str
    kept: bool = True


def add_page(parser: argparse.ArgumentParser, page: Path = PAGE) -> None:
    """The option that all have."""
    parser.add_argument(
        "--page", type=Path, default=page, help=f"where the tables go (docs/{page.name})"
    )


def put(page: Path, name: str, text: str) -> None:
    """Print what was measured, and put it into its place on the page."""
    print(text)
    page.write_text(between(page.read_text("utf-8"), name, text), "utf-8")


def told(promises: Sequence[Promise], *, page: Path, name: str, above: str) -> int:
    """Print the table and put it into the page; 1 if a promise was broken."""
    rows = [
        [each.what, each.promised, each.measured, "yes" if each.kept else "**no**"]
        for each in promises
    ]
    text = f"{above}\n\n{table(['What', 'Promised', 'Measured', 'Kept'], rows)}"
    put(page, name, text)
    return 0 if all(each.kept for each in promises) else 1
