"""Lines of the log stay whole and block nobody, even if the reader stalls."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
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
json_log.flush()
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
    yield out
    json_log._lines.clear()
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
