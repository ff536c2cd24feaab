"""The folder of one run, in memory, that its processes share: what they count and how they are.

Knows folders and locks; knows nothing of what is in them.
"""

import fcntl
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # names it to all; prometheus-client's own name
PREFIX = "convserve-"
LOCK = "run.lock"
KEY = "key"


def made(memory: Path = Path("/dev/shm")) -> Path:  # noqa: S108
    """A new one: what an earlier run counted must not be counted again. Those of runs that were
    killed, and could not remove theirs, are removed."""
    parent = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / LOCK).open("r+") as file:  # it lives, or is another's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))


def hold(run: Path) -> int:
    """Show that it is in use, for as long as this process and those that it forks live. The file
    descriptor that does so."""
    made = run / f".{LOCK}"
    held = os.open(made, os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    made.rename(run / LOCK)
    (run / KEY).write_text(secrets.token_hex(32))  # the folder is its owner's alone
    return held


def began(run: Path) -> float | None:
    """When it began, in seconds since 1970."""
    path = run / KEY
    return path.stat().st_mtime if path.exists() else None


def key(run: Path) -> str | None:
    """A secret that its processes share and no other run has."""
    path = run / KEY
    return path.read_text() if path.exists() else None
