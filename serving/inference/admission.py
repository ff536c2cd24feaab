"""Admission control of one worker: bounds on requests, on images and on the bytes of bodies.

Runs in the worker's event loop. The order of work is the batcher's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.errors import Overloaded


class Admission:
    """The places of one worker."""

    def __init__(self, *, max_requests: int, max_images: int, max_bytes: int) -> None:
        """Bound the bodies of all requests together by ``max_bytes``."""
        self.max_requests, self.max_images = max_requests, max_images
        self.max_bytes = max_bytes
        self.on_idle: Callable[[], object] | None = None  # called when the last request ends
        self._requests = self._bytes = self._images = 0

    @contextmanager
    def receiving(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that holds the bytes of each received part of a body, until the end of
        the block; it raises Overloaded if the bodies of all requests have too many bytes. A slow
        client gets no place before ``request``."""
        held = 0

        def received(size: int) -> None:
            nonlocal held
            self._hold(size)
            held += size

        try:
            yield received
        finally:
            self._bytes -= held

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
        self._hold(size)
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= size
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

    def _hold(self, size: int) -> None:
        if self._bytes + size > self.max_bytes:
            raise Overloaded(
                f"The bodies of requests hold {self._bytes} of {self.max_bytes} bytes. Try again"
                " later."
            )
        self._bytes += size
