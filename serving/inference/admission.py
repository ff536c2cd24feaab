"""Who is let in: places for requests and for images, and the bytes of all bodies, each bounded.

One per worker, in its event loop. Knows numbers alone; who is let in runs by ``batcher``'s rules.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.errors import Overloaded


class Admission:
    """The places of one worker."""

    def __init__(self, *, max_requests: int, max_images: int, max_bytes: int) -> None:
        """``max_bytes`` bounds the bodies of all requests together."""
        self.max_requests, self.max_images = max_requests, max_images
        self.max_bytes = max_bytes
        self.idled: Callable[[], object] = lambda: None  # told when the last request has gone
        self._requests = self._bytes = self._images = 0

    @contextmanager
    def arriving(self) -> Iterator[Callable[[int], None]]:
        """Hold the bytes of a body that comes, as they are told, until all are there.

        A client may take all its time to send: it has no place before ``request``.

        Raises:
            Overloaded: the bodies of all requests have too many bytes.
        """
        held = 0

        def came(size: int) -> None:
            nonlocal held
            self._hold(size)
            held += size

        try:
            yield came
        finally:
            self._bytes -= held

    def check(self) -> None:
        """See that there is a place for a request.

        Raises:
            Overloaded: all are taken.
        """
        if self._requests >= self.max_requests:
            raise Overloaded(
                f"All {self.max_requests} places for requests are taken. Try again later."
            )

    @contextmanager
    def request(self, size: int) -> Iterator[None]:
        """Hold one of the places for requests, and the bytes of its body, which is there, until it
        is answered.

        Raises:
            Overloaded: all places are taken, or the bodies have too many bytes.
        """
        self.check()
        self._hold(size)
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= size
            if self.idle:
                self.idled()

    @contextmanager
    def images(self, count: int) -> Iterator[None]:
        """Hold places for ``count`` images, from before they are decoded to the answer.

        A request larger than the bound is admitted when no other image is held, or it never would.

        Raises:
            Overloaded: the queue is full.
        """
        if self._images and self._images + count > self.max_images:
            raise Overloaded(
                f"The queue holds {self._images} of {self.max_images} images and cannot take"
                f" {count} more. Try again later."
            )
        self._images += count
        try:
            yield
        finally:
            self._images -= count

    @property
    def idle(self) -> bool:
        """Whether no request holds a place."""
        return not self._requests

    def _hold(self, size: int) -> None:
        if self._bytes + size > self.max_bytes:
            raise Overloaded(
                f"The bodies of requests hold {self._bytes} of {self.max_bytes} bytes. Try again"
                " later."
            )
        self._bytes += size
