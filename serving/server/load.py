"""How much each worker has: active connections, and how busy it is. Who leaves what to whom.

Knows memory that processes share, and selectors; knows no socket and no connection.

Connections alone do not tell: eight that ask without a pause are more work than fifty that ask now
and then. So a worker that is clearly busier than another gives up work to it, and among workers
that are about as busy connections count.
"""

import mmap
import selectors
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

NONE = -1  # connections of a slot that no worker has, or whose worker does not accept

# Seconds after which a worker that says nothing is left alone: it speaks once a second.
STALE = 3.0

# By so much of its time a worker must be busier than another for that to count.
CLEARLY = 0.3


class Share(NamedTuple):
    """What a worker has."""

    active: int  # connections
    busy: float  # the share of the last second in which it did not wait for work
    slot: int


class Shares:
    """What each worker has, in memory that the workers inherit."""

    def __init__(self, slots: int = 1024) -> None:
        memory = memoryview(mmap.mmap(-1, 24 * slots))
        self._counts = memory[: 8 * slots].cast("q")
        self._told = memory[8 * slots : 16 * slots].cast("d")  # when, a ``time.monotonic()``
        self._busy = memory[16 * slots :].cast("d")
        for slot in range(slots):
            self._counts[slot] = NONE

    def tell(self, slot: int, active: int, busy: float | None = None) -> None:
        """The worker in this slot has so many; it is as busy as it was, unless that is told."""
        self._counts[slot], self._told[slot] = active, time.monotonic()
        if busy is not None or active == NONE:
            self._busy[slot] = busy or 0.0

    def of(self, slot: int) -> Share:
        """What the worker in this slot told."""
        return Share(self._counts[slot], self._busy[slot], slot)

    def others(self, slots: int, *, but: int) -> list[Share]:
        """What those that accept have, in the first ``slots``."""
        since = time.monotonic() - STALE
        return [
            self.of(slot)
            for slot, count in enumerate(self._counts[:slots])
            if slot != but and count != NONE and self._told[slot] > since
        ]


def least(others: Sequence[Share]) -> Share | None:
    """Who has the fewest connections of those that are about as idle as any."""
    if len(others) > 1:
        idlest = min(each.busy for each in others)
        others = [each for each in others if each.busy <= idlest + CLEARLY]
    return min(others, key=lambda each: (each.active, each.slot), default=None)


def leaves(own: Share, other: Share | None, *, spare: int = 0) -> bool:
    """Whether a worker leaves a new connection to the one that has the least; as it is busier,
    ``spare`` times at most, or all would go to and fro."""
    if other is None or other.busy > own.busy + CLEARLY:
        return False
    busier = own.busy > other.busy + CLEARLY
    return (busier and spare > 0) or own.active > _enough(other)


def surplus(own: Share, others: Sequence[Share]) -> float:
    """Which part of its work a worker gives up, to have no more than the mean: one that was
    replaced would have none of the old connections."""
    other = least(others)
    if other is None or other.busy > own.busy + CLEARLY:
        return 0.0
    if own.busy > other.busy + CLEARLY:
        return _above(own.busy, [each.busy for each in others])
    if own.active <= _enough(other) + 1:
        return 0.0
    return _above(own.active, [each.active for each in others])


def _above(own: float, others: Sequence[float]) -> float:
    """By which part of itself it is above the mean."""
    return max(0.0, 1 - (own + sum(others)) / (1 + len(others)) / own)


def _enough(other: Share) -> int:
    """Connections with which a worker takes more: as many as another has, and a fourth, so that a
    storm must not wait for the others."""
    return other.active + other.active // 4


class Selector(selectors.DefaultSelector):
    """Of an event loop; notes for how long it waited with nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.works: Callable[[], Any] = lambda: False  # whether threads work for the loop
        self._waited, self._since = 0.0, time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As that of the library."""
        if (timeout is not None and timeout <= 0) or self.works():
            return super().select(timeout)
        began = time.monotonic()
        try:
            return super().select(timeout)
        finally:
            self._waited += time.monotonic() - began

    def busy(self) -> float:
        """The share of the time since this was asked for in which it did not wait."""
        now = time.monotonic()
        waited, passed = self._waited, now - self._since
        self._waited, self._since = 0.0, now
        return max(0.0, 1 - waited / passed) if passed else 0.0
