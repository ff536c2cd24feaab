"""Admission control of one worker: bounds on requests, on images and on the bytes of bodies.

Runs in the worker's event loop. The order of work is the batcher's. Large bodies cannot shut out
small ones, which have a reserve, and of the bodies that arrive too slowly the largest is given up
first: otherwise a few clients that each stall before their last byte would take all bytes.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from serving.errors import Overloaded

RESERVE = 8  # the fraction of the bytes that small bodies may use in addition
SMALL = 256 * 1024  # bytes of a small body, if that is no larger part of all bytes than this
PART = 128
# A body that grows by less than this in so many seconds may be given up for another one.
PROGRESS = 64 * 1024
STALLED = 1.0


class _Arriving:
    """A body that is being received by a task."""

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.task = task
        self.held = 0  # bytes
        self.given_up = False
        self._progressed_at, self._progress = time.monotonic(), 0

    def add(self, size: int) -> None:
        """Count received bytes."""
        self.held += size
        self._progress += size
        if self._progress >= PROGRESS:
            self._progressed_at, self._progress = time.monotonic(), 0

    @property
    def stalled(self) -> bool:
        """Return True if it arrives too slowly."""
        return time.monotonic() - self._progressed_at > STALLED


class Admission:
    """The places of one worker."""

    def __init__(self, *, max_requests: int, max_images: int, max_bytes: int) -> None:
        """Bound the bodies of all requests together by ``max_bytes``, beside the reserve."""
        self.max_requests, self.max_images = max_requests, max_images
        self.max_bytes, self._small = max_bytes, min(SMALL, max_bytes // PART)
        self.on_idle: Callable[[], object] | None = None  # called when the last request ends
        self._requests = self._bytes = self._images = 0
        self._arriving: set[_Arriving] = set()

    @contextmanager
    def receiving(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that holds the bytes of each received part of a body, until the end of
        the block; it raises Overloaded if the bodies of all requests have too many bytes. A slow
        client gets no place before ``request``.

        Raises:
            Overloaded: in the block, at its next ``await``, if the body stalls and was given up.
        """
        body = _Arriving(asyncio.current_task())
        self._arriving.add(body)

        def received(size: int) -> None:
            self._hold(size, of=body.held + size)
            body.add(size)

        try:
            yield received
        except asyncio.CancelledError:
            if not body.given_up or body.task is None or body.task.uncancel():
                raise  # the client has closed
            raise Overloaded(
                "The body arrived too slowly while the bodies of requests held too many bytes. Try"
                " again later."
            ) from None
        finally:
            self._arriving.discard(body)
            self._bytes -= body.held

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold the bytes of a received body; raise Overloaded if all bodies have too many."""
        self._hold(size, of=size)
        try:
            yield
        finally:
            self._bytes -= size

    def check(self) -> None:
        """Raise Overloaded if no place for a request is free."""
        if self._requests >= self.max_requests:
            raise Overloaded(
                f"All {self.max_requests} places for requests are taken. Try again later."
            )

    @contextmanager
    def request(self, size: int) -> Iterator[None]:
        """Hold a place for a request, and the bytes of its received body, until it is answered.
        Raise Overloaded if all places are taken, or the bodies have too many bytes."""
        self.check()
        with self.holding(size):
            self._requests += 1
            try:
                yield
            finally:
                self._requests -= 1
                if self.on_idle is not None and not self._requests:
                    self.on_idle()

    @contextmanager
    def images(self, count: int) -> Iterator[None]:
        """Hold places for ``count`` images, from before they are decoded until the answer; raise
        Overloaded if the queue is full. A request larger than the bound is admitted while no other
        image is held, or it never would."""
        if self._images and self._images + count > self.max_images:
            raise Overloaded(
                f"The queue holds {self._images} of {self.max_images} images and has no room for"
                f" {count} more. Try again later."
            )
        self._images += count
        try:
            yield
        finally:
            self._images -= count

    @property
    def idle(self) -> bool:
        """Return True if no request holds a place."""
        return not self._requests

    def _hold(self, size: int, *, of: int) -> None:
        """Hold more bytes of a body that then has ``of`` bytes."""
        most = self.max_bytes + (self.max_bytes // RESERVE if of <= self._small else 0)
        while self._bytes + size > most:
            if not self._give_up():
                raise Overloaded(
                    f"The bodies of requests hold {self._bytes} of {most} bytes. Try again later."
                )
        self._bytes += size

    def _give_up(self) -> bool:
        """Give up the largest body that stalls, but not the caller's; return True if there is one.
        Its request is answered 503 in the next iteration of the event loop."""
        caller = asyncio.current_task()
        stalled = (
            each
            for each in self._arriving
            if each.held and each.stalled and each.task is not caller
        )
        largest = max(stalled, key=lambda each: each.held, default=None)
        if largest is None or largest.task is None:
            return False
        largest.task.cancel()
        self._bytes -= largest.held
        largest.held, largest.given_up = 0, True
        return True
