"""How workers balance connections among themselves."""

import asyncio
import os
import time

import pytest

from serving.server import load
from serving.server.load import NONE, Load, LoadTable, Selector, defers, least_loaded, surplus


def test_the_least_loaded_is_another_worker_that_accepts() -> None:
    table = LoadTable()
    assert least_loaded(table.others(4, but=3)) is None
    table.publish(0, 5)
    table.publish(2, 3, 0.2)
    assert least_loaded(table.others(4, but=3)) == Load(3, 0.2, 2)
    assert least_loaded(table.others(4, but=2)) == Load(5, 0.0, 0)
    table.publish(2, NONE)
    assert least_loaded(table.others(4, but=3)) == Load(5, 0.0, 0)


def test_among_idle_workers_the_one_with_the_fewest_connections_is_least_loaded() -> None:
    table = LoadTable()
    for slot, (active, busy) in enumerate([(2, 0.9), (9, 0.1), (7, 0.3), (8, 0.0)]):
        table.publish(slot, active, busy)
    assert least_loaded(table.others(4, but=9)) == Load(7, 0.3, 2)
    assert least_loaded(table.others(4, but=2)) == Load(8, 0.0, 3)
    assert least_loaded(table.others(1, but=2)) == Load(2, 0.9, 0)


def test_a_busy_fraction_remains_until_the_next_and_a_new_worker_is_idle() -> None:
    table = LoadTable()
    table.publish(0, 5, 0.8)
    table.publish(0, 6)
    assert table.of(0) == Load(6, 0.8, 0)
    table.publish(0, NONE)
    table.publish(0, 1)
    assert table.of(0) == Load(1, 0.0, 0)


def test_workers_see_the_load_of_each_other() -> None:
    table = LoadTable()
    if (child := os.fork()) == 0:
        table.publish(1, 7, 0.5)
        os._exit(0)
    os.waitpid(child, 0)
    assert least_loaded(table.others(4, but=0)) == Load(7, 0.5, 1)


def test_a_worker_that_stops_publishing_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    table = LoadTable()
    table.publish(1, 7)
    monkeypatch.setattr(load, "STALE", 0)
    assert least_loaded(table.others(4, but=0)) is None


# Connections and busy fraction, here and there; if the other accepts; the fraction to give up
@pytest.mark.parametrize(
    ("own", "other", "left", "part"),
    [
        ((8, 1.0), None, False, 0),
        ((0, 0.0), (0, 0.0), False, 0),
        ((1, 0.0), (0, 0.0), True, 0),
        ((2, 0.5), (0, 0.5), True, 1 / 2),
        ((8, 1.0), (0, 0.0), True, 1 / 2),  # the other was replaced
        ((5, 0.5), (3, 0.4), True, 1 / 5),
        ((4, 0.5), (3, 0.4), True, 0),
        ((50, 1.0), (40, 1.0), False, 0),
        ((33, 1.0), (25, 0.0), True, 1 / 2),  # all work is here
        ((20, 1.0), (30, 0.2), True, 2 / 5),
        ((30, 0.2), (20, 1.0), False, 0),
    ],
)
def test_load_moves_to_the_least_loaded_worker(
    own: tuple[int, float], other: tuple[int, float] | None, left: bool, part: float
) -> None:
    here, there = Load(*own, 0), [] if other is None else [Load(*other, 1)]
    assert defers(here, least_loaded(there), spare=1) is left
    assert surplus(here, there) == pytest.approx(part)


def test_each_of_many_workers_gives_up_a_little() -> None:
    busy, idle = [Load(8, 1.0, slot) for slot in range(15)], Load(0, 0.0, 15)
    given = [surplus(each, [*(o for o in busy if o != each), idle]) for each in busy]
    assert sum(given) == pytest.approx(15 / 16)


def test_short_connections_do_not_swing_between_workers() -> None:
    """A busier worker defers no more connections than would make both equal."""
    here, there = Load(9, 1.0, 0), Load(8, 0.0, 1)
    assert defers(here, there, spare=1)
    assert not defers(here, there, spare=0)
    assert defers(Load(11, 1.0, 0), there, spare=0)


def test_a_loop_is_busy_while_it_does_not_wait_for_work() -> None:
    selector = Selector()
    loop = asyncio.SelectorEventLoop(selector)
    try:
        selector.busy()
        loop.run_until_complete(asyncio.sleep(0.2))
        idle = selector.busy()
        loop.call_later(0.001, time.sleep, 0.2)
        loop.run_until_complete(asyncio.sleep(0.01))
        busy = selector.busy()
        selector.threads_work = lambda: True
        loop.run_until_complete(asyncio.sleep(0.2))
        beside = selector.busy()
    finally:
        loop.close()
    assert idle < 0.5 < busy <= 1
    assert beside == 1
