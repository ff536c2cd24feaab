"""The lines of the log: whole, whoever writes beside, and no burden where nobody reads them."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from pythonjsonlogger.json import JsonFormatter

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
    """The end at which a log is read that nobody reads yet."""
    out, into = os.pipe()
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


def test_a_reader_that_stalls_stalls_no_loop_and_loses_no_line(pipe: int) -> None:
    async def requests() -> None:
        for _ in range(2000):  # more than a pipe holds
            json_log.write(20, FIELDS)
        await asyncio.sleep(0)
        assert json_log._lines
        reading = asyncio.to_thread(read, pipe, 2000)
        assert len(await reading) == 2000

    stalled = threading.Thread(target=asyncio.run, args=(requests(),), daemon=True)
    stalled.start()
    stalled.join(60)
    assert not stalled.is_alive()
    assert not json_log._lines


def test_a_reader_that_stalls_stalls_no_other_thread(pipe: int) -> None:
    async def requests() -> None:
        json_log.use(asyncio.get_running_loop())
        record = logging.makeLogRecord({"msg": "x" * 120})
        for _ in range(1000):  # more than a pipe holds
            await asyncio.to_thread(json_log.write, 20, FIELDS)
            await asyncio.to_thread(handler().handle, record)
        assert json_log._lines
        assert len(await asyncio.to_thread(read, pipe, 2000)) == 2000

    try:
        asyncio.run(asyncio.wait_for(requests(), 60))
    finally:
        json_log.use(None)
    assert not json_log._lines


def handler() -> json_log.Handler:
    made = json_log.Handler()
    made.setFormatter(JsonFormatter("%(message)s"))
    return made


def test_an_exception_leaves_one_line_with_its_end(pipe: int) -> None:
    exc = RuntimeError("x" * 10_000 + "the end")
    told = {"msg": "bug", "path": "/" * 9000, "exc_info": (RuntimeError, exc, None)}
    handler().handle(logging.makeLogRecord(told))
    (line,) = read(pipe, 1)
    assert line["message"] == "bug"
    assert str(line["exc_info"]).endswith("xthe end")
    assert len(json.dumps(line)) < json_log.AT_ONCE


def test_what_was_left_out_is_told(pipe: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_log, "WAITING", 3)

    async def requests() -> None:
        for _ in range(5):
            json_log.write(20, FIELDS)

    asyncio.run(requests())
    json_log.flush()
    told = [(line["message"], line.get("count")) for line in read(pipe, 4)]
    assert told == [("request", None)] * 3 + [("requests left out", 2)]


def test_a_line_that_is_too_long_is_cut(pipe: int) -> None:
    json_log.write(20, {"path": "/" + "\N{GRINNING FACE}" * 8000, "status": 404})
    (line,) = read(pipe, 1)
    assert (len(str(line["path"])), line["status"]) == (json_log.LONGEST, 404)
