"""Locks between processes: a file that one process holds, released by the kernel when it ends.

Knows files only; what a held lock means is for the caller to say.
"""

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)


def take(path: Path, *, waiting: str = "") -> IO[bytes]:
    """Create and lock a file, and return it; closing it releases the lock.

    If another process holds the lock, log ``waiting`` and wait.

    Raises:
        BlockingIOError: if another process holds the lock and ``waiting`` is empty.
        OSError: if the file cannot be created or locked.
    """
    while True:
        file = path.open("ab")
        try:
            _lock(file, waiting)
            with suppress(FileNotFoundError):  # the holder may have removed it in the meantime
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[bytes], waiting: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not waiting:
            raise
        log.info(waiting)
        fcntl.flock(file, fcntl.LOCK_EX)
