"""Slots of workers, and the end of one."""

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serving.server import worker as worker_module
from serving.server.http.pool import Pool
from serving.server.load import LoadTable
from serving.server.worker import Worker, free_slot, take_slot
from tests.serving.waiting import until


def worker() -> Worker:
    """Return what is needed of a worker to have a slot."""
    return cast("Worker", SimpleNamespace(slot=None))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "taken", set())
    monkeypatch.setattr(Worker, "loads", LoadTable())


def test_a_new_worker_gets_the_slot_of_the_one_that_it_replaces() -> None:
    first, second, third = worker(), worker(), worker()
    for each in (first, second):
        take_slot(each)
    free_slot(first)
    take_slot(third)
    assert (first.slot, second.slot, third.slot) == (0, 1, 0)


def test_a_worker_that_has_ended_has_no_load() -> None:
    one = worker()
    take_slot(one)
    Worker.loads.publish(one.slot, 0)
    free_slot(one)
    Worker.loads.publish(one.slot + 1, 9)
    assert Worker.loads.others(4, but=2) == [(9, 0, 1)]


def test_a_worker_gives_heartbeats_while_it_loads_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "BEAT_SECONDS", 0.001)
    beats: list[float] = []
    loading = cast("Worker", SimpleNamespace(notify=lambda: beats.append(time.monotonic())))
    with Worker._heartbeat(loading):
        until(lambda: len(beats) > 3)
    given = len(beats)
    time.sleep(0.05)
    assert len(beats) == given


def test_a_load_that_hangs_gives_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(worker_module, "LOAD_SECONDS", 0.01)
    with Worker._heartbeat(cast("Worker", SimpleNamespace(notify=list))):
        until(lambda: "heartbeat" not in {each.name for each in threading.enumerate()})


def test_a_worker_waits_for_connections_that_it_has_accepted() -> None:
    async def end() -> None:
        pool = Pool(cast("Any", None), failure=cast("Any", None), keep_alive=600)
        pool.open(1)  # accepted, and no connection yet
        stopping = SimpleNamespace(
            loop=asyncio.get_running_loop(),
            pool=pool,
            cfg=SimpleNamespace(graceful_timeout=600),
            notify=list,
            _quick=False,
        )
        ended = asyncio.create_task(Worker._drained(cast("Worker", stopping)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not ended.done()
        pool.open(-1)
        await asyncio.wait_for(ended, 60)

    asyncio.run(end())
