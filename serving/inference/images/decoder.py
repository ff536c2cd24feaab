"""From the images of a request to pixels: a small image in the worker's event loop, a large one in
a thread.

Knows images and the deadline; knows nothing of models but their pixels.
"""

import asyncio
import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from serving.errors import DeadlineExceeded, ServingError
from serving.inference.images import pixels

SMALL = 1_000_000  # pixels of an image that is decoded in the loop: some 10 ms of a photograph
# Bytes of such a file. The dearest pieces that fit into so many take some 20 ms: 16,000 comments of
# a JPEG, or eight colour profiles of a PNG, each of which inflates to a megabyte.
JPEG_BYTES, BYTES = 64 * 1024, 8 * 1024
HANDED = 4 * 1024  # where a worker has processors to spare: what costs more than to hand it over
BREATH = 0.003  # seconds of decoding, of all requests, after which the loop looks at its sockets

Upload = bytes | ServingError  # an image file, or why there is none
Image = Upload | NDArray[np.uint8]  # or pixels (H, W, C)
Decoded = NDArray[np.uint8] | ServingError
Measure = Callable[[str, float], None]  # a stage of a request, and the seconds it took


class Decoder:
    """Decodes what comes to one worker."""

    def __init__(self, max_pixels: int, *, processors: int = 1) -> None:
        """``max_pixels`` bounds an image, and 8 bytes for each what those take together that are
        decoded in threads at once. ``processors`` are this worker's."""
        self._max_pixels = max_pixels
        self._jpeg_bytes, self._bytes = JPEG_BYTES, BYTES
        if processors > 1:
            self._jpeg_bytes = self._bytes = HANDED
        # Two at least: a photograph does not wait for one of fifty megapixels.
        self._threads = ThreadPoolExecutor(max(2, processors), thread_name_prefix="decode")
        self._memory = Memory(8 * max_pixels)
        self.handed = 0  # images that threads have
        self._spent, self._done = 0.0, 0  # seconds, and images, in this step of the loop
        self._came = itertools.count()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []  # a heap
        self._queued = 0  # these, and those that were told to go on and did not yet
        self._renews = False

    async def decode(
        self, given: Sequence[Image], spec: pixels.PixelSpec, *, deadline: float, measure: Measure
    ) -> list[Decoded]:
        """Pixels of each image, or why there are none, in their order.

        ``measure`` gets the seconds spent in "decode", for each image.

        Raises:
            DeadlineExceeded: ``deadline``, a ``time.monotonic()``, passed before the last.
        """
        decoded: list[Decoded] = []
        came = next(self._came)
        for image in given:
            if self._spent > BREATH or (self._queued and not decoded):
                await self._turn(came, deadline)
            began = time.monotonic()
            if began >= deadline:
                raise DeadlineExceeded("The deadline passed before all images were decoded.")
            if isinstance(image, bytes):
                decoded.append(await self._pixels(image, spec, deadline, measure))
            else:
                decoded.append(image)
            self._spend(time.monotonic() - began)
        return decoded

    async def _turn(self, came: int, deadline: float) -> None:
        """Wait for a step of the loop in which there is time for one more; who came first is
        first."""
        loop = asyncio.get_running_loop()
        self._queued += 1
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    turn = loop.create_future()
                    heapq.heappush(self._waiting, (came, turn))
                    self._come_again()
                    await turn
                    if self._spent <= BREATH:
                        return
        except TimeoutError:  # it is told as any deadline
            pass
        finally:
            self._queued -= 1

    def _spend(self, seconds: float) -> None:
        """Count it; the next step of the loop begins at nothing again."""
        self._spent += seconds
        self._done += 1
        self._come_again()

    def _come_again(self) -> None:
        if not self._renews:
            self._renews = True
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        """Let as many go on as had time in the last step, and one more. If all tried, the steps
        would be about who waits."""
        self._renews, self._spent, count, self._done = False, 0.0, self._done + 1, 0
        while self._waiting and count:
            _, turn = heapq.heappop(self._waiting)
            if not turn.done():  # past its deadline, or its client has left
                turn.set_result(None)
                count -= 1
        if self._waiting:
            self._come_again()

    async def _pixels(
        self, file: bytes, spec: pixels.PixelSpec, deadline: float, measure: Measure
    ) -> Decoded:
        began = time.monotonic()
        try:
            exact = pixels.exact(file, spec)
            if exact is not None:
                return exact
            if len(file) <= (self._jpeg_bytes if file.startswith(b"\xff\xd8") else self._bytes):
                opened = pixels.opened(file, max_pixels=self._max_pixels)
                if opened.width * opened.height <= SMALL:
                    return pixels.pixels(opened, spec)
            return await self._handed_over(file, spec, deadline)
        except DeadlineExceeded:
            raise
        except ServingError as exc:
            return exc
        finally:
            measure("decode", time.monotonic() - began)

    async def _handed_over(
        self, file: bytes, spec: pixels.PixelSpec, deadline: float
    ) -> NDArray[np.uint8]:
        loop = asyncio.get_running_loop()
        decoding = loop.run_in_executor(self._threads, self.read, file, spec, deadline)
        self.handed += 1
        decoding.add_done_callback(self._came_back)
        try:
            async with asyncio.timeout_at(deadline):
                return await decoding
        except TimeoutError:
            raise DeadlineExceeded(
                "The deadline passed before a large image was decoded."
            ) from None

    def _came_back(self, _: object) -> None:
        self.handed -= 1

    def read(
        self, file: bytes, spec: pixels.PixelSpec, deadline: float = math.inf
    ) -> NDArray[np.uint8]:
        """In the caller's thread: ``images.read``, once there is memory for it."""
        opened = pixels.opened(file, max_pixels=self._max_pixels)
        with self._memory.held(pixels.memory(opened), deadline):
            return pixels.pixels(opened, spec)


class Memory:
    """Bytes that threads may decode into at once."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def held(self, size: int, deadline: float) -> Iterator[None]:
        """Hold so many, up to all, once they are free; who comes first is first.

        Raises:
            DeadlineExceeded: they were not by ``deadline``.
        """
        size = min(size, self._most)
        left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        with self._turn, self._changed:
            if not self._changed.wait_for(lambda: self._held + size <= self._most, left):
                raise DeadlineExceeded("The deadline passed before there was memory for an image.")
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify()


def check(decoded: Sequence[Decoded]) -> None:
    """Raise the first error, with its place if there are several images."""
    for place, each in enumerate(decoded, 1):
        if isinstance(each, ServingError):
            where = f"Image {place} of {len(decoded)}: " if len(decoded) > 1 else ""
            raise type(each)(f"{where}{each}") from each
