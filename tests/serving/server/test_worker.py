"""What gunicorn's worker must do otherwise, where only its own objects show it."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serving.server.http.pool import Pool
from serving.server.load import LoadTable
from serving.server.worker import Worker, free_slot, take_slot


def worker() -> Worker:
    """Enough of one to have a slot."""
    return cast("Worker", SimpleNamespace(slot=None))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "taken", set())
    monkeypatch.setattr(Worker, "loads", LoadTable())


def test_a_replaced_worker_leaves_its_slot_to_the_next() -> None:
    first, second, third = worker(), worker(), worker()
    for each in (first, second):
        take_slot(each)
    free_slot(first)
    take_slot(third)
    assert (first.slot, second.slot, third.slot) == (0, 1, 0)


def test_a_worker_that_is_gone_counts_no_longer() -> None:
    one = worker()
    take_slot(one)
    Worker.loads.publish(one.slot, 0)
    free_slot(one)
    Worker.loads.publish(one.slot + 1, 9)
    assert Worker.loads.others(4, but=2) == [(9, 0, 1)]


def test_a_worker_ends_when_those_that_it_accepted_are_gone_too() -> None:
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
