"""Decode the images of a request: a small one in the worker's event loop, a large one in a thread.

Knows of models only the pixels that they expect.
"""

import asyncio
import ctypes
import heapq
import itertools
import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from serving.errors import DeadlineExceeded, ServingError
from serving.inference.images import pixels

SMALL = 1_000_000  # pixels of an image decoded in the loop: some 10 ms for a photograph
# Bytes of a file decoded in the loop. The slowest take some 20 ms: 16,000 comments in a JPEG, or a
# PNG that inflates to a thousand times its size.
JPEG_BYTES, BYTES = 64 * 1024, 8 * 1024
SPARE_BYTES = 4 * 1024  # instead of both where a worker has several processors: a handover is cheap
# glibc's parameters. Left alone it raises its threshold to 32 MB, and then each thread keeps the
# memory of its largest images: four threads held five times the bound.
MMAP_THRESHOLD, TRIM_THRESHOLD = (-3, 4 * 1024 * 1024), (-1, 8 * 1024 * 1024)
BUDGET = 0.003  # seconds of decoding, of all requests, in one iteration of the loop

Upload = bytes | ServingError  # an image file, or the reason why there is none
Image = Upload | NDArray[np.uint8]  # or pixels (H, W, C)
Decoded = NDArray[np.uint8] | ServingError
Spent = defaultdict[str, float]  # the seconds of a request, by stage


class Decoder:
    """The decoder of one worker: a time budget in its event loop, and a pool of threads."""

    def __init__(self, max_pixels: int, *, processors: int = 1) -> None:
        """Bound an image by ``max_pixels``, and the images in threads by 8 bytes for each of these.
        ``processors`` is the number that this worker has to itself."""
        self._max_pixels = max_pixels
        self._jpeg_bytes, self._bytes = JPEG_BYTES, BYTES
        if processors > 1:
            self._jpeg_bytes = self._bytes = SPARE_BYTES
        # At least two: a photograph does not wait for an image of fifty megapixels.
        self._threads = ThreadPoolExecutor(max(2, processors), thread_name_prefix="decode")
        self._memory = Memory(8 * max_pixels)
        _return_freed_memory()
        self.in_threads = 0  # images handed over to threads
        self._spent, self._done = 0.0, 0  # seconds, and images, in this iteration of the loop
        self._arrivals = itertools.count()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []  # a heap, by arrival
        self._queued = 0  # requests that wait, or were woken and have not run yet
        self._scheduled = False

    async def decode(
        self,
        given: Sequence[Image],
        spec: pixels.PixelSpec,
        *,
        deadline: float,
        spent: Spent,
        tolerant: bool = True,
    ) -> list[Decoded]:
        """Return the pixels of each image, or the error that it raised, in order.

        Add the seconds to ``spent["decode"]``.

        Raises:
            DeadlineExceeded: if ``deadline``, a ``time.monotonic()``, passes before the last image.
            ServingError: the first error, unless ``tolerant``; the message names its image.
        """
        decoded: list[Decoded] = []
        arrival = next(self._arrivals)
        for image in given:
            if self._spent > BUDGET or (self._queued and not decoded):
                await self._wait_for_budget(arrival, deadline)
            started = time.monotonic()
            if started >= deadline:
                raise DeadlineExceeded("The deadline passed before all images were decoded.")
            if isinstance(image, bytes):
                image = await self._decode_file(image, spec, started, deadline, spent)
            decoded.append(image)
        if not tolerant:
            for place, each in enumerate(decoded, 1):
                if isinstance(each, ServingError):
                    where = f"Image {place} of {len(decoded)}: " if len(decoded) > 1 else ""
                    raise type(each)(f"{where}{each}") from each
        return decoded

    async def _wait_for_budget(self, arrival: int, deadline: float) -> None:
        """Wait, first in first out, until this iteration of the loop has budget left, or until the
        deadline."""
        loop = asyncio.get_running_loop()
        self._queued += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    while True:
                        woken = loop.create_future()
                        heapq.heappush(self._waiting, (arrival, woken))
                        self._schedule()
                        await woken
                        if self._spent <= BUDGET:
                            return
        finally:
            self._queued -= 1

    def _schedule(self) -> None:
        """Renew the budget in the next iteration of the loop."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        """Wake as many requests as images were decoded in the last iteration, and one more: waking
        all would make the cost of an iteration grow with the queue."""
        self._scheduled, self._spent, count, self._done = False, 0.0, self._done + 1, 0
        while self._waiting and count:
            _, woken = heapq.heappop(self._waiting)
            if not woken.done():  # cancelled, or past its deadline
                woken.set_result(None)
                count -= 1
        if self._waiting:
            self._schedule()

    async def _decode_file(
        self, file: bytes, spec: pixels.PixelSpec, started: float, deadline: float, spent: Spent
    ) -> Decoded:
        try:
            plain = pixels.read_plain(file, spec)
            if plain is not None:
                return plain
            if len(file) <= (self._jpeg_bytes if file.startswith(b"\xff\xd8") else self._bytes):
                image = pixels.open_image(file, max_pixels=self._max_pixels)
                if image.width * image.height <= SMALL:
                    return pixels.decode(image, spec)
            return await self._decode_in_thread(file, spec, deadline)
        except DeadlineExceeded:
            raise
        except ServingError as exc:
            return exc
        finally:
            seconds = time.monotonic() - started
            spent["decode"] += seconds
            self._spent += seconds
            self._done += 1
            self._schedule()

    async def _decode_in_thread(
        self, file: bytes, spec: pixels.PixelSpec, deadline: float
    ) -> NDArray[np.uint8]:
        loop = asyncio.get_running_loop()
        self.in_threads += 1
        try:
            async with asyncio.timeout_at(deadline):
                return await loop.run_in_executor(self._threads, self.read, file, spec, deadline)
        except TimeoutError as exc:
            raise DeadlineExceeded("The deadline passed before a large image was decoded.") from exc
        finally:
            self.in_threads -= 1

    def read(
        self, file: bytes, spec: pixels.PixelSpec, deadline: float = math.inf
    ) -> NDArray[np.uint8]:
        """Decode in the caller's thread, as soon as there is memory for the image.

        Raises:
            InvalidImage, ImageTooLarge, OutOfMemory: as ``pixels.read`` does.
            DeadlineExceeded: if there is no memory by ``deadline``.
        """
        image = pixels.open_image(file, max_pixels=self._max_pixels)
        with self._memory.hold(pixels.decode_memory(image), deadline):
            found = pixels.decode(image, spec)
            del image  # its canvas, before another image may use the memory
        return found


def _return_freed_memory() -> None:
    """Make glibc return the memory of large images to the system as soon as they are freed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only in glibc
    if mallopt is not None:
        for parameter, value in (MMAP_THRESHOLD, TRIM_THRESHOLD):
            mallopt(parameter, value)


class Memory:
    """A weighted semaphore: the bytes into which threads may decode at the same time."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def hold(self, size: int, deadline: float) -> Iterator[None]:
        """Hold ``size`` bytes, at most all of them; wait, first in first out, until they are free.
        Raise DeadlineExceeded if they are not by ``deadline``."""
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
