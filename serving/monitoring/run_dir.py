"""The folder of one run, in memory, in which its processes share counts and states."""

import fcntl
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's variable, which names the folder
PREFIX = "convserve-"
LOCK = "run.lock"
KEY = "key"
MEMORY = Path("/dev/shm")  # noqa: S108
ROOM = 4 * 1024 * 1024  # bytes that must be free there: some two workers and five versions


def create(memory: Path = MEMORY) -> Path:
    """Create an empty folder, as no run may continue another's counts, and remove the folders that
    killed runs left behind. It lies in the temporary directory if ``memory`` has no room."""
    temporary = Path(tempfile.gettempdir())
    for parent in (memory, temporary):
        for folder in parent.glob(f"{PREFIX}*"):
            with suppress(OSError), (folder / LOCK).open("r+") as file:  # locked, or another user's
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=memory if _has_room(memory) else temporary))


def _has_room(folder: Path) -> bool:
    """Return True if a file of ``ROOM`` bytes can be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            allocate(file.fileno(), ROOM)
    except OSError:
        return False
    return True


def allocate(descriptor: int, size: int) -> None:
    """Allocate the first ``size`` bytes of a file, where the system can; raise OSError if there is
    no room."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)


def lock(run: Path) -> int:
    """Mark the folder as in use while this process or one of its forks lives. Return the file
    descriptor that holds the lock."""
    unlocked = run / f".{LOCK}"
    descriptor = os.open(unlocked, os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unlocked.rename(run / LOCK)
    (run / KEY).write_text(secrets.token_hex(32))  # mkdtemp: only the owner can read it
    return descriptor


def started_at(run: Path) -> float:
    """Return the start of a locked run, in seconds since 1970."""
    return (run / KEY).stat().st_mtime


def key(run: Path) -> str:
    """Return a secret that the processes of a locked run share."""
    return (run / KEY).read_text()
