"""The load of each worker, and the rules by which workers balance connections among themselves.

Knows memory shared by processes, and selectors; knows no socket and no connection.

The number of connections alone is misleading: eight that send without pause are more work than
fifty that send now and then. So a worker that is clearly busier than another gives up work to it;
among workers about as busy the number of connections counts.
"""

import mmap
import selectors
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

NONE = -1  # connections in a slot without a worker, or whose worker does not accept

# Seconds after which a worker that published nothing is ignored; it publishes once a second.
STALE = 3.0

# Difference of two busy fractions from which on a worker is clearly busier.
CLEARLY = 0.3


class Load(NamedTuple):
    """The load of one worker."""

    active: int  # connections
    busy: float  # fraction of the last second in which the event loop had work
    slot: int


class LoadTable:
    """The load of each worker, in memory that the workers inherit."""

    def __init__(self, slots: int = 1024) -> None:
        memory = memoryview(mmap.mmap(-1, 24 * slots))
        self._counts = memory[: 8 * slots].cast("q")
        self._published = memory[8 * slots : 16 * slots].cast("d")  # a ``time.monotonic()``
        self._busy = memory[16 * slots :].cast("d")
        for slot in range(slots):
            self._counts[slot] = NONE

    def publish(self, slot: int, active: int, busy: float | None = None) -> None:
        """Publish the load of the worker in a slot; without ``busy`` that remains."""
        self._counts[slot], self._published[slot] = active, time.monotonic()
        if busy is not None or active == NONE:
            self._busy[slot] = busy or 0.0

    def of(self, slot: int) -> Load:
        """Return the load of one worker."""
        return Load(self._counts[slot], self._busy[slot], slot)

    def others(self, slots: int, *, but: int) -> list[Load]:
        """Return the load of every other worker that accepts, among the first ``slots``."""
        since = time.monotonic() - STALE
        return [
            self.of(slot)
            for slot, count in enumerate(self._counts[:slots])
            if slot != but and count != NONE and self._published[slot] > since
        ]


def least_loaded(others: Sequence[Load]) -> Load | None:
    """Return the worker with the fewest connections among those about as idle as the idlest."""
    if len(others) > 1:
        idlest = min(each.busy for each in others)
        others = [each for each in others if each.busy <= idlest + CLEARLY]
    return min(others, key=lambda each: (each.active, each.slot), default=None)


def defers(own: Load, other: Load | None, *, spare: int = 0) -> bool:
    """Return True if ``other``, the least loaded worker, should accept the next connection. A
    busier worker defers ``spare`` times at most, or connections would swing between the two."""
    if other is None or other.busy > own.busy + CLEARLY:
        return False
    busier = own.busy > other.busy + CLEARLY
    return (busier and spare > 0) or own.active > _tolerated(other)


def surplus(own: Load, others: Sequence[Load]) -> float:
    """Return the fraction of its load above the mean that a worker should give up: one that
    replaced another begins without connections."""
    other = least_loaded(others)
    if other is None or other.busy > own.busy + CLEARLY:
        return 0.0
    if own.busy > other.busy + CLEARLY:
        return _above_mean(own.busy, [each.busy for each in others])
    if own.active <= _tolerated(other) + 1:
        return 0.0
    return _above_mean(own.active, [each.active for each in others])


def _above_mean(own: float, others: Sequence[float]) -> float:
    return max(0.0, 1 - (own + sum(others)) / (1 + len(others)) / own)


def _tolerated(other: Load) -> int:
    """Return a quarter more connections than the other's, so that nobody waits in a burst."""
    return other.active + other.active // 4


class Selector(selectors.DefaultSelector):
    """A selector that measures how long the event loop waits for work."""

    def __init__(self) -> None:
        super().__init__()
        self.threads_work: Callable[[], Any] = lambda: False  # for the loop
        self._waited, self._since = 0.0, time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for sockets that are ready, as the base class does."""
        if (timeout is not None and timeout <= 0) or self.threads_work():
            return super().select(timeout)
        began = time.monotonic()
        try:
            return super().select(timeout)
        finally:
            self._waited += time.monotonic() - began

    def busy(self) -> float:
        """Return the busy fraction since the last call."""
        now = time.monotonic()
        waited, passed = self._waited, now - self._since
        self._waited, self._since = 0.0, now
        return max(0.0, 1 - waited / passed) if passed else 0.0
