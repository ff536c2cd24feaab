"""Locks between processes: a file that one process holds, released by the kernel when it ends.

Knows files only; what a held lock means is for the caller to say.
"""

import fcntl
import logging
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)


def take(path: Path, *, waiting: str = "") -> IO[bytes]:
    """Create and lock a file, and return it; closing it releases the lock.

    If another process holds the lock, log ``waiting`` and wait, or raise ``BlockingIOError`` if
    ``waiting`` is empty. Raise another ``OSError`` if the file cannot be created or locked.
    """
    while True:
        with ExitStack() as opened:
            file = opened.enter_context(path.open("ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waiting:
                    raise
                log.info(waiting)
                fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):  # the holder may have removed it in the meantime
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    opened.pop_all()  # keep it open
                    return file
