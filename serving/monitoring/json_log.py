"""The lines of the log. That of a request is made by hand, as the logging module takes longer than
the request.

Knows the shape of the others (``worker.logging_config``); knows nothing of requests. Several
processes write into one pipe: what is written at once is whole lines and no more than the kernel
takes whole. A reader that stalls stalls no worker; its lines wait, and some are left out.
"""

import asyncio
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache

import orjson

OUT = 1  # standard output
AT_ONCE = select.PIPE_BUF  # 4,096 bytes on Linux
LONGEST = 256  # characters of a text in a line that is too long; each may be six bytes
WAITING = 10_000  # lines
AGAIN = 0.05  # seconds until a reader that stalls is tried again

_lines: deque[bytes] = deque()
_lock = threading.Lock()
_left_out = 0
_home: asyncio.AbstractEventLoop | None = None


def write(level: int, fields: Mapping[str, object]) -> None:
    """One line; those of one step of an event loop are written together."""
    _put(_line(level, "request", fields))


class Handler(logging.Handler):
    """Writes the lines of the logging module, too."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        try:
            line = self._formatted(record)
            if len(line) > AT_ONCE:
                line = self._formatted(_cut(record))
        except Exception:  # noqa: BLE001 - as the handlers of the library do
            self.handleError(record)
        else:
            _put(line)

    def _formatted(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("utf-8", "backslashreplace") + b"\n"


def use(loop: asyncio.AbstractEventLoop | None) -> None:
    """From now on this loop, which runs, writes the lines of all threads."""
    global _home
    _home = loop


def flush(*, wait: bool = True) -> bool:
    """Write what waits; without ``wait`` only what is taken at once. Whether that was all."""
    while _lines:
        if not select.select([], [OUT], [], None if wait else 0)[1]:
            return False
        with suppress(OSError):  # nobody reads any more
            os.write(OUT, _taken())
    return True


def _put(line: bytes) -> None:
    with _lock:
        first = not _lines
        _keep(line)
    if not first:
        return
    try:
        asyncio.get_running_loop().call_soon(_in_loop)
    except RuntimeError:  # in another thread
        if _home is None:
            flush()
        else:
            _home.call_soon_threadsafe(_in_loop)


def _in_loop() -> None:
    if not flush(wait=False):
        asyncio.get_running_loop().call_later(AGAIN, _in_loop)


def _keep(line: bytes) -> None:
    global _left_out
    if len(_lines) < WAITING:
        _lines.append(line)
    else:
        _left_out += 1


def _taken() -> bytes:
    """The first of the lines that wait: as many as are written at once."""
    global _left_out
    taken: list[bytes] = []
    size = 0
    with _lock:
        while _lines and (not taken or size + len(_lines[0]) <= AT_ONCE):
            size += len(_lines[0])
            taken.append(_lines.popleft())
        if _left_out and not _lines:
            _lines.append(_line(logging.WARNING, "requests left out", {"count": _left_out}))
            _left_out = 0
    return b"".join(taken)


def _line(level: int, message: str, fields: Mapping[str, object]) -> bytes:
    now = time.time()
    head = {
        "time": _clock(int(now)),
        "level": logging.getLevelName(level),
        "logger": "serving.app.exchange",
        "message": message,
        "process": os.getpid(),
    }
    line = orjson.dumps({**head, **fields}, option=orjson.OPT_APPEND_NEWLINE)
    if len(line) > AT_ONCE:
        cut = {name: it[:LONGEST] if isinstance(it, str) else it for name, it in fields.items()}
        line = orjson.dumps({**head, **cut}, option=orjson.OPT_APPEND_NEWLINE)
    return line


def _cut(record: logging.LogRecord) -> logging.LogRecord:
    """The same in a line of bounded length; of an exception the end, which tells most."""
    told = {
        name: it[:LONGEST] if isinstance(it, str) else it
        for name, it in {**vars(record), "msg": record.getMessage(), "args": ()}.items()
    }
    text = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
    return logging.makeLogRecord({**told, "exc_info": None, "exc_text": text[-4 * LONGEST :]})


@lru_cache(maxsize=1)
def _clock(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))
