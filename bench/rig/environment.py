"""What a benchmark needs beside this package, looked for before it begins."""

import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

# How to get what may be missing.
PROGRAMS = {
    "wrk": "the Debian package wrk, `brew install wrk`, or https://github.com/wg/wrk",
    "strace": "the Debian package strace",
    "nginx": "the Debian package nginx-light",
    "postgres": "the Debian package postgresql",
    "prometheus": "the Debian package prometheus",
}
EXTRA = "the extras `serve` and `bench`: pip install '.[serve,bench]'"


def program(name: str) -> str | None:
    """Where a program lies: on PATH, or where Debian puts what few call by hand."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*"), key=lambda each: float(each.name))
    aside = [*(each / "bin" for each in reversed(versions)), Path("/usr/sbin")]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, aside)))


def require(*, programs: Iterable[str] = (), packages: Iterable[str] = ()) -> None:
    """Stop with exit code 2 and a sentence for each thing that is missing.

    From then on SIGTERM ends a benchmark as Ctrl-C does: what it has started, it stops.
    """
    problems = [
        f"The program {name!r} is not on PATH. Get {PROGRAMS[name]}."
        for name in programs
        if program(name) is None
    ]
    problems += [
        f"The Python package {name!r} is not installed beside this one. Get {EXTRA}."
        for name in packages
        if importlib.util.find_spec(name) is None
    ]
    if sys.platform != "linux":
        problems.append("The benchmarks of serving read /proc, which only Linux has.")
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        raise SystemExit(2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
