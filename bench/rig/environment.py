"""Check before a benchmark begins that the programs and packages it needs are installed."""

import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

# Where to get a missing program.
PROGRAMS = {
    "wrk": "the Debian package wrk, `brew install wrk`, or https://github.com/wg/wrk",
    "nginx": "the Debian package nginx-light",
    "postgres": "the Debian package postgresql",
    "prometheus": "the Debian package prometheus",
}
EXTRA = "the extras `serve` and `bench`: pip install '.[serve,bench]'"


def program(name: str) -> str | None:
    """Return the path of a program: on PATH, or in a folder where Debian hides it."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*"), key=lambda each: float(each.name))
    hidden = [*(each / "bin" for each in reversed(versions)), Path("/usr/sbin")]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, hidden)))


def require(*, programs: Iterable[str] = (), packages: Iterable[str] = ()) -> None:
    """Exit with code 2 and a sentence for each missing program or package.

    Afterwards SIGTERM ends the benchmark as Ctrl-C does: every started server is stopped.
    """
    problems = [
        f"The program {name!r} is not on PATH. Get {PROGRAMS[name]}."
        for name in programs
        if program(name) is None
    ]
    problems += [
        f"The Python package {name!r} is not installed. Get {EXTRA}."
        for name in ("psutil", *packages)
        if importlib.util.find_spec(name) is None
    ]
    if sys.platform != "linux":
        problems.append("The benchmarks of serving need Linux.")
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        raise SystemExit(2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
