"""Slots of workers, and the end of one."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serving.server.http.pool import Pool
from serving.server.load import LoadTable
from serving.server.worker import Worker, free_slot, take_slot


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
