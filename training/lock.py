"""Locks between processes: a file that one of them holds, and that the kernel takes from it when it
ends, however it ends.

Knows files only; what it means that another process holds one is its caller's to say.
"""

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)


def take(path: Path, *, waiting: str = "") -> IO[bytes]:
    """Make and lock the file; it is held until what is returned is closed. Where another process
    holds it, log ``waiting`` and wait.

    Raises:
        BlockingIOError: another process holds it, and there is nothing to log.
        OSError: the file cannot be made or locked.
    """
    while True:
        file = path.open("ab")
        try:
            _lock(file, waiting)
            with suppress(FileNotFoundError):  # its holder may have removed it as we waited
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
