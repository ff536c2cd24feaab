"""Which images are decoded in the loop and which in threads, in which order, how many at once."""

import asyncio
import heapq
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.errors import DeadlineExceeded
from serving.inference.images import decoder
from serving.inference.images import pixels as images
from serving.inference.images.decoder import Decoded, Decoder, Memory
from tests.serving.samples import png

SPEC = images.PixelSpec(8, 6, 1, "stretch")
LIMIT = 10_000_000
SECONDS = 60.0


def noise(kind: str, side: int) -> bytes:
    file = BytesIO()
    levels = np.random.default_rng(0).normal(128, 60, (side, side)).clip(0, 255)
    Image.fromarray(levels.astype(np.uint8)).save(file, kind)
    return file.getvalue()


SMALL, MANY_PIXELS = png(10, size=(9, 9)), png(10, size=(1001, 1000))
MANY_BYTES, PHOTOGRAPH = noise("PNG", 120), noise("JPEG", 120)


class Opened:
    """Records the threads that open files; images of many pixels wait at a gate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        self.gate, self.waits = threading.Event(), threading.Event()
        open_image, decode = images.open_image, images.decode

        def noted(data: bytes, *, max_pixels: int) -> Image.Image:
            self.threads.append(threading.current_thread())
            return open_image(data, max_pixels=max_pixels)

        def gated(image: Image.Image, spec: images.PixelSpec) -> NDArray[np.uint8]:
            if image.width * image.height > decoder.SMALL:
                self.waits.set()
                self.gate.wait(SECONDS)
            return decode(image, spec)

        monkeypatch.setattr(images, "open_image", noted)
        monkeypatch.setattr(images, "decode", gated)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    made = Opened(monkeypatch)
    yield made
    made.gate.set()


async def decoded(by: Decoder, file: bytes, seconds: float = SECONDS) -> Decoded:
    deadline = time.monotonic() + seconds
    (found,) = await by.decode([file], SPEC, deadline=deadline, spent=defaultdict(float))
    return found


@pytest.mark.parametrize(
    ("file", "processors", "in_loop"),
    [
        pytest.param(SMALL, 1, True, id="small"),
        pytest.param(PHOTOGRAPH, 1, True, id="a JPEG"),
        pytest.param(MANY_BYTES, 1, False, id="many bytes"),
        pytest.param(SMALL, 4, True, id="small, spare processors"),
        pytest.param(PHOTOGRAPH, 4, False, id="a JPEG, spare processors"),
    ],
)
def test_only_small_files_are_decoded_in_the_loop(
    opened: Opened, file: bytes, processors: int, in_loop: bool
) -> None:
    found = asyncio.run(decoded(Decoder(LIMIT, processors=processors), file))
    assert isinstance(found, np.ndarray)
    assert (opened.threads == [threading.current_thread()]) is in_loop


def test_pillow_never_opens_a_png_that_only_needs_inflating(opened: Opened) -> None:
    found = asyncio.run(decoded(Decoder(LIMIT), png(10)))
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, np.full((8, 6, 1), 10))
    assert not opened.threads


def test_a_photograph_does_not_wait_for_a_huge_image(opened: Opened) -> None:
    async def both() -> Any:
        made = Decoder(LIMIT)
        huge = asyncio.ensure_future(decoded(made, MANY_PIXELS))
        await asyncio.to_thread(opened.waits.wait, SECONDS)
        assert isinstance(await decoded(made, MANY_BYTES), np.ndarray)
        assert not huge.done()
        opened.gate.set()
        return await huge

    assert asyncio.run(both()).shape == (8, 6, 1)


def test_the_pixels_decoded_at_once_are_bounded(opened: Opened) -> None:
    async def both() -> None:
        made = Decoder(1_500_000)
        huge = asyncio.ensure_future(decoded(made, MANY_PIXELS))
        await asyncio.to_thread(opened.waits.wait, SECONDS)
        with pytest.raises(DeadlineExceeded):
            await decoded(made, MANY_PIXELS, seconds=0.05)
        opened.gate.set()
        assert isinstance(await huge, np.ndarray)
        assert isinstance(await decoded(made, MANY_PIXELS), np.ndarray)

    asyncio.run(both())


def test_memory_is_bounded_and_given_back() -> None:
    memory = Memory(10)
    with (
        memory.hold(4, 0),
        memory.hold(6, 0),
        pytest.raises(DeadlineExceeded, match="memory"),
        memory.hold(1, 0),
    ):
        pass
    with memory.hold(11, 0):
        pass


def test_the_loop_polls_its_sockets_between_the_images_of_several_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoder, "BUDGET", 0.0)
    steps = 0

    async def step() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    async def several() -> None:
        by, stepping = Decoder(1_000_000), asyncio.create_task(step())
        await asyncio.gather(*(decoded(by, noise("png", 20)) for _ in range(8)))
        stepping.cancel()

    asyncio.run(several())
    assert steps > 8


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """Return a decoder of one image in each iteration of the loop."""
    monkeypatch.setattr(decoder, "BUDGET", 0.0)
    return Decoder(1_000_000)


def test_requests_are_decoded_in_order_and_waiting_is_cheap(
    crowded: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []
    waits = 0

    def push(heap: Any, each: Any) -> None:
        nonlocal waits
        waits += 1
        heapq.heappush(heap, each)

    monkeypatch.setattr(decoder, "heapq", SimpleNamespace(heappush=push, heappop=heapq.heappop))

    async def one(number: int) -> None:
        await decoded(crowded, SMALL)
        order.append(number)

    async def several() -> None:
        await asyncio.gather(*map(one, range(200)))

    asyncio.run(several())
    assert order == list(range(200))
    assert 199 <= waits < 600  # not 200 in each iteration


def test_a_new_request_does_not_overtake_a_waiting_one(crowded: Decoder) -> None:
    order: list[int] = []

    async def one(number: int) -> None:
        await decoded(crowded, SMALL)
        order.append(number)

    async def several() -> None:
        tasks = []
        for number in range(50):
            tasks.append(asyncio.ensure_future(one(number)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    asyncio.run(several())
    assert order == list(range(50))


def test_a_started_request_continues_before_others_start(crowded: Decoder) -> None:
    order: list[str] = []

    async def one(name: str, images: int) -> None:
        await crowded.decode(
            [SMALL] * images, SPEC, deadline=time.monotonic() + SECONDS, spent=defaultdict(float)
        )
        order.append(name)

    async def both() -> None:
        await asyncio.gather(one("large", 20), one("small", 1))

    asyncio.run(both())
    assert order == ["large", "small"]


def test_expired_and_cancelled_requests_delay_no_other(crowded: Decoder) -> None:
    async def several() -> None:
        late = asyncio.ensure_future(decoded(crowded, SMALL, seconds=0.001))
        gone = asyncio.ensure_future(decoded(crowded, SMALL))
        later = asyncio.ensure_future(decoded(crowded, SMALL, seconds=0.001))
        left = asyncio.ensure_future(decoded(crowded, SMALL))
        last = asyncio.ensure_future(decoded(crowded, SMALL))
        crowded._spent = 1.0
        crowded._done = 1
        crowded._schedule()
        await asyncio.sleep(0)
        assert len(crowded._waiting) == 3  # two were woken
        left.cancel()
        gone.cancel()
        time.sleep(0.002)
        for each in (late, later):
            with pytest.raises(DeadlineExceeded):
                await each
        assert isinstance(await last, np.ndarray)
        assert gone.cancelled()
        assert left.cancelled()

    asyncio.run(several())
