"""Lines of the log stay whole and block nobody, even if the reader stalls."""

import asyncio
import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from serving.monitoring import json_log
from tests.serving.running import ROOT

FIELDS = {"request_id": "x" * 120, "path": "/predict/shade", "status": 200}

WRITER = """
import asyncio, logging
from serving.monitoring import json_log
async def steps():
    for step in range(60):
        for each in range(48):
            json_log.write(logging.INFO, {"request_id": "x" * 120, "step": step, "each": each})
        await asyncio.sleep(0)
asyncio.run(steps())
json_log.flush(seconds=60)
"""


def test_lines_of_two_processes_in_one_pipe_stay_whole() -> None:
    out, into = os.pipe()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER], cwd=ROOT, stdout=into) for _ in range(2)
    ]
    os.close(into)
    with os.fdopen(out, "rb") as read:
        lines = [json.loads(line) for line in read]
    assert [writer.wait() for writer in writers] == [0, 0]
    for writer in writers:
        own = [(each["step"], each["each"]) for each in lines if each["process"] == writer.pid]
        assert own == [(step, each) for step in range(60) for each in range(48)]


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return the reading end of a log that nobody reads yet."""
    out, into = os.pipe()
    json_log._lines.clear()  # of other tests
    monkeypatch.setattr(json_log, "OUT", into)
    json_log._nonblocking.cache_clear()
    yield out
    json_log._lines.clear()
    os.close(json_log._nonblocking(into))
    json_log._nonblocking.cache_clear()
    os.close(into)
    os.close(out)


def read(pipe: int, count: int) -> list[dict[str, object]]:
    got = b""
    while got.count(b"\n") < count:
        got += os.read(pipe, 65536)
    return [json.loads(line) for line in got.splitlines()]


def test_a_stalled_reader_blocks_no_loop_and_loses_no_line(pipe: int) -> None:
    async def requests() -> None:
        for _ in range(2000):  # more than a pipe holds
            json_log.write(20, FIELDS)
        await asyncio.sleep(0)
        assert json_log._lines
        reading = asyncio.to_thread(read, pipe, 2000)
        assert len(await reading) == 2000

    thread = threading.Thread(target=asyncio.run, args=(requests(),), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert not json_log._lines


def test_a_stalled_reader_blocks_no_other_thread(pipe: int) -> None:
    async def requests() -> None:
        json_log.use(asyncio.get_running_loop())
        record = logging.makeLogRecord({"msg": "x" * 120})
        for _ in range(1000):  # more than a pipe holds
            await asyncio.to_thread(json_log.write, 20, FIELDS)
            await asyncio.to_thread(json_log.Handler().handle, record)
        assert json_log._lines
        assert len(await asyncio.to_thread(read, pipe, 2000)) == 2000

    try:
        asyncio.run(asyncio.wait_for(requests(), 60))
    finally:
        json_log.use(None)
    assert not json_log._lines


def test_a_stalled_reader_blocks_no_process_without_a_loop(pipe: int) -> None:
    for _ in range(2000):  # more than a pipe holds
        json_log.write(20, FIELDS)
    assert not json_log.flush(seconds=0.01)
    reading = threading.Thread(target=read, args=(pipe, 2000))
    reading.start()
    assert json_log.flush(seconds=60)
    reading.join(60)
    assert not reading.is_alive()


def test_a_pipe_that_another_process_has_filled_blocks_nobody(
    pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = os.open(f"/proc/self/fd/{json_log.OUT}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(other, bytes(4096))
    os.close(other)
    before: Iterator[object] = iter([([], [json_log.OUT], [])])  # it was filled since
    waits = select.select
    monkeypatch.setattr(select, "select", lambda *given: next(before, None) or waits(*given))
    json_log.write(20, FIELDS)
    assert len(json_log._lines) == 1
    assert not os.read(pipe, 2**20).strip(b"\0")
    assert json_log.flush(seconds=60)
    (line,) = read(pipe, 1)
    assert line["status"] == 200


def test_a_socket_blocks_nobody(pipe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monkeypatch.setattr(json_log, "OUT", ours.fileno())
        for _ in range(5000):
            json_log.write(20, FIELDS)
        assert json_log._lines
        assert not os.get_blocking(ours.fileno())
        json_log._lines.clear()
        json_log._nonblocking.cache_clear()


def test_a_forked_process_does_not_repeat_the_lines_of_its_parent(pipe: int) -> None:
    for _ in range(2000):
        json_log.write(20, FIELDS)
    child = os.fork()
    if not child:
        os._exit(len(json_log._lines) + json_log._lock.locked())
    assert os.waitpid(child, 0)[1] == 0


def test_an_exception_leaves_one_line_with_its_end(pipe: int) -> None:
    exc = RuntimeError("x" * 10_000 + "the end")
    record = {"msg": "%s", "args": ("bug",), "name": "serving.app", "levelno": logging.ERROR}
    extra = {"path": "/" * 9000, "exc_info": (RuntimeError, exc, None)}
    json_log.Handler().handle(logging.makeLogRecord(record | extra))
    (line,) = read(pipe, 1)
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "serving.app", "bug")
    assert len(str(line["path"])) == json_log.LONGEST
    assert str(line["exc_info"]).endswith("xthe end")
    assert len(json.dumps(line)) < json_log.ATOMIC


def test_dropped_lines_are_counted(pipe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_log, "BUFFERED", 3)

    async def requests() -> None:
        for _ in range(5):
            json_log.write(20, FIELDS)

    asyncio.run(requests())
    json_log.flush()
    lines = [(line["message"], line.get("count")) for line in read(pipe, 4)]
    assert lines == [("request", None)] * 3 + [("log lines dropped", 2)]


def test_a_line_that_is_too_long_is_cut(pipe: int) -> None:
    json_log.write(20, {"path": "/" + "\N{GRINNING FACE}" * 8000, "status": 404})
    (line,) = read(pipe, 1)
    assert (len(str(line["path"])), line["status"]) == (json_log.LONGEST, 404)


def test_values_of_any_kind_are_logged(pipe: int) -> None:
    values = {"folder": Path("/models"), "file": "\udcff", "count": {1: 2}}
    json_log.Handler().handle(logging.makeLogRecord({"msg": "start", **values}))
    (line,) = read(pipe, 1)
    assert (line["folder"], line["file"], line["count"]) == ("/models", "\udcff", {"1": 2})
    assert line.keys() == {"time", "level", "logger", "message", "process", *values}
