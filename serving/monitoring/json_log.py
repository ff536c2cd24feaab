"""Write the log: one JSON object per line on standard output.

A request's line bypasses the logging module, which takes longer than the request. Several processes
share one pipe: each write holds whole lines and at most what the kernel writes atomically. A reader
that stalls blocks no process, the master included: lines are buffered, and beyond a bound dropped
and counted.
"""

import asyncio
import json
import logging
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import orjson

OUT = 1  # standard output
ATOMIC = select.PIPE_BUF  # 4,096 bytes on Linux
LONGEST = 256  # characters of a text in a line that is too long; JSON may need six bytes each
BUFFERED = 10_000  # lines
RETRY = 0.05  # seconds until the next write to a reader that stalls

_STANDARD = {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"}

_lines: deque[bytes] = deque()
_lock = threading.Lock()
_dropped = 0
_home: asyncio.AbstractEventLoop | None = None


def write(level: int, fields: Mapping[str, object]) -> None:
    """Write a request's line; the lines of one iteration of an event loop are written together."""
    _put(_line(level, "serving.api.exchange", "request", fields))


class Handler(logging.Handler):
    """The logging module's way to the same lines: a record's ``extra`` becomes fields."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line."""
        try:
            fields = {name: it for name, it in vars(record).items() if name not in _STANDARD}
            if record.exc_info:
                fields["exc_info"] = logging.Formatter().formatException(record.exc_info)
            _put(_line(record.levelno, record.name, record.getMessage(), fields))
        except Exception:  # noqa: BLE001 - as the handlers of the library do
            self.handleError(record)


def use(loop: asyncio.AbstractEventLoop | None) -> None:
    """Let this running loop write the lines of all threads from now on."""
    global _home
    _home = loop
    if loop is not None:
        loop.call_soon(_write_in_loop)  # what was left before it ran


def flush(*, seconds: float = 0.0) -> bool:
    """Write the buffered lines while the reader accepts them, and wait so many seconds for it at
    most. Return True if none is left. Without a loop this is called by each line, by gunicorn's
    master also once a second, and at the end."""
    end = time.monotonic() + seconds
    while _lines:
        if not select.select([], [OUT], [], max(0.0, end - time.monotonic()))[1]:
            return False
        data = _next_write()
        try:
            os.write(_nonblocking(OUT), data)
        except BlockingIOError:  # another process was faster
            with _lock:
                _lines.appendleft(data)
        except OSError:  # the reader has closed the pipe
            pass
    return True


@cache
def _nonblocking(out: int) -> int:
    """Return a descriptor that never blocks: if a pipe has room for one write only, several
    processes may find that. The pipe is opened again, as its other writers may expect to block."""
    kind = os.fstat(out).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
        try:
            return os.open(f"/proc/self/fd/{out}", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # a socket, another user's pipe, or another system
            os.set_blocking(out, False)
    return out


def _put(line: bytes) -> None:
    global _dropped
    with _lock:
        first = not _lines
        if len(_lines) < BUFFERED:
            _lines.append(line)
        else:
            _dropped += 1
    if not first and _home is not None:
        return
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another thread
        if _home is None:
            flush()
        else:
            _home.call_soon_threadsafe(_write_in_loop)
    else:
        if first:
            loop.call_soon(_write_in_loop)


def _write_in_loop() -> None:
    if not flush():
        asyncio.get_running_loop().call_later(RETRY, _write_in_loop)


def _next_write() -> bytes:
    """Take the first buffered lines: as many as one atomic write holds."""
    global _dropped
    taken: list[bytes] = []
    size = 0
    with _lock:
        while _lines and (not taken or size + len(_lines[0]) <= ATOMIC):
            size += len(_lines[0])
            taken.append(_lines.popleft())
        if _dropped and not _lines:
            fields = {"count": _dropped}
            _lines.append(_line(logging.WARNING, __name__, "log lines dropped", fields))
            _dropped = 0
    return b"".join(taken)


def _forget() -> None:
    """Leave the buffered lines to the process that forked this one."""
    global _dropped, _home, _lock
    _lines.clear()
    _dropped, _home, _lock = 0, None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


def _line(level: int, logger: str, message: str, fields: Mapping[str, object]) -> bytes:
    line = {
        "time": _clock(int(time.time())),
        "level": logging.getLevelName(level),
        "logger": logger,
        "message": message,
        "process": os.getpid(),
        **fields,
    }
    encoded = _encoded(line)
    if len(encoded) > ATOMIC:
        encoded = _encoded({name: _shortened(name, it) for name, it in line.items()})
    return encoded


def _encoded(line: Mapping[str, object]) -> bytes:
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # what orjson refuses: other types, unpaired surrogates of file names
        return json.dumps(line, default=str).encode() + b"\n"


def _shortened(name: str, value: Any) -> Any:
    """Return a bounded value: the start of a text; of an exception the end, which says most."""
    if not isinstance(value, str):
        return value
    return value[-4 * LONGEST :] if name == "exc_info" else value[:LONGEST]


@lru_cache(maxsize=1)
def _clock(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))
