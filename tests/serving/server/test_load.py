"""Who of several workers leaves what to whom."""

import asyncio
import os
import time

import pytest

from serving.server import load
from serving.server.load import NONE, Selector, Share, Shares, least, leaves, surplus


def test_the_least_is_that_of_another_that_accepts() -> None:
    told = Shares()
    assert least(told.others(4, but=3)) is None
    told.tell(0, 5)
    told.tell(2, 3, 0.2)
    assert least(told.others(4, but=3)) == Share(3, 0.2, 2)
    assert least(told.others(4, but=2)) == Share(5, 0.0, 0)
    told.tell(2, NONE)
    assert least(told.others(4, but=3)) == Share(5, 0.0, 0)


def test_of_several_the_idle_come_first_and_of_these_who_has_the_fewest() -> None:
    told = Shares()
    for slot, (active, busy) in enumerate([(2, 0.9), (9, 0.1), (7, 0.3), (8, 0.0)]):
        told.tell(slot, active, busy)
    assert least(told.others(4, but=9)) == Share(7, 0.3, 2)
    assert least(told.others(4, but=2)) == Share(8, 0.0, 3)
    assert least(told.others(1, but=2)) == Share(2, 0.9, 0)


def test_a_worker_is_as_busy_as_it_told_last_and_a_new_one_is_idle() -> None:
    told = Shares()
    told.tell(0, 5, 0.8)
    told.tell(0, 6)
    assert told.of(0) == Share(6, 0.8, 0)
    told.tell(0, NONE)
    told.tell(0, 1)
    assert told.of(0) == Share(1, 0.0, 0)


def test_workers_see_what_another_tells() -> None:
    told = Shares()
    if (child := os.fork()) == 0:
        told.tell(1, 7, 0.5)
        os._exit(0)
    os.waitpid(child, 0)
    assert least(told.others(4, but=0)) == Share(7, 0.5, 1)


def test_a_worker_that_says_nothing_counts_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Shares()
    told.tell(1, 7)
    monkeypatch.setattr(load, "STALE", 0)
    assert least(told.others(4, but=0)) is None


# Connections and how busy, here and there. Does a new one go there, and what part of the work?
@pytest.mark.parametrize(
    ("own", "other", "left", "part"),
    [
        ((8, 1.0), None, False, 0),
        ((0, 0.0), (0, 0.0), False, 0),
        ((1, 0.0), (0, 0.0), True, 0),
        ((2, 0.5), (0, 0.5), True, 1 / 2),
        ((8, 1.0), (0, 0.0), True, 1 / 2),  # it was replaced
        ((5, 0.5), (3, 0.4), True, 1 / 5),
        ((4, 0.5), (3, 0.4), True, 0),
        ((50, 1.0), (40, 1.0), False, 0),
        ((33, 1.0), (25, 0.0), True, 1 / 2),  # all work is here
        ((20, 1.0), (30, 0.2), True, 2 / 5),
        ((30, 0.2), (20, 1.0), False, 0),
    ],
)
def test_work_goes_where_there_is_less(
    own: tuple[int, float], other: tuple[int, float] | None, left: bool, part: float
) -> None:
    here, there = Share(*own, 0), [] if other is None else [Share(*other, 1)]
    assert leaves(here, least(there), spare=1) is left
    assert surplus(here, there) == pytest.approx(part)


def test_of_many_workers_each_gives_up_a_little() -> None:
    busy, idle = [Share(8, 1.0, slot) for slot in range(15)], Share(0, 0.0, 15)
    given = [surplus(each, [*(o for o in busy if o != each), idle]) for each in busy]
    assert sum(given) == pytest.approx(15 / 16)


def test_where_connections_come_and_go_workers_do_not_swing() -> None:
    """Those that are left to another as that is idle are no more than would make both equal."""
    here, there = Share(9, 1.0, 0), Share(8, 0.0, 1)
    assert leaves(here, there, spare=1)
    assert not leaves(here, there, spare=0)
    assert leaves(Share(11, 1.0, 0), there, spare=0)


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
        selector.works = lambda: True
        loop.run_until_complete(asyncio.sleep(0.2))
        beside = selector.busy()
    finally:
        loop.close()
    assert idle < 0.5 < busy <= 1
    assert beside == 1
