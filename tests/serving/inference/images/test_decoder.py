"""What is decoded in the loop and what beside it, and how much at once."""

import asyncio
import heapq
import threading
import time
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
    Image.effect_noise((side, side), 60).save(file, kind)
    return file.getvalue()


SMALL, MANY_PIXELS = png(10, size=(9, 9)), png(10, size=(1001, 1000))
MANY_BYTES, PHOTOGRAPH = noise("PNG", 120), noise("JPEG", 120)


class Opened:
    """Notes the threads that open files; a gate lets those of many pixels wait."""

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
    (found,) = await by.decode([file], SPEC, deadline=deadline, observe=lambda *_: None)
    return found


@pytest.mark.parametrize(
    ("file", "processors", "in_loop"),
    [
        pytest.param(SMALL, 1, True, id="small"),
        pytest.param(PHOTOGRAPH, 1, True, id="a JPEG"),
        pytest.param(MANY_BYTES, 1, False, id="many bytes"),
        pytest.param(SMALL, 4, True, id="small, other processors"),
        pytest.param(PHOTOGRAPH, 4, False, id="a JPEG, other processors"),
    ],
)
def test_only_what_is_short_is_decoded_in_the_loop(
    opened: Opened, file: bytes, processors: int, in_loop: bool
) -> None:
    found = asyncio.run(decoded(Decoder(LIMIT, processors=processors), file))
    assert isinstance(found, np.ndarray)
    assert (opened.threads == [threading.current_thread()]) is in_loop


def test_what_only_has_to_be_inflated_is_never_opened_by_pillow(opened: Opened) -> None:
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


def test_what_is_decoded_at_once_is_bounded_by_its_pixels(opened: Opened) -> None:
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


def test_memory_is_held_up_to_all_of_it_and_given_back() -> None:
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


def test_what_takes_more_memory_holds_more_of_it() -> None:
    kinds = (noise("PNG", 20), noise("WEBP", 20))
    assert [images.decode_memory(images.open_image(each, max_pixels=LIMIT)) for each in kinds] == [
        3200,
        6400,
    ]


def test_the_loop_looks_at_its_sockets_between_the_images_of_several_requests(
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
    """One image in each step of the loop."""
    monkeypatch.setattr(decoder, "BUDGET", 0.0)
    return Decoder(1_000_000)


def test_who_came_first_is_decoded_first_and_who_waits_costs_nothing(
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
    assert 199 <= waits < 600  # and not 200 in each step


def test_who_comes_in_each_step_overtakes_nobody(crowded: Decoder) -> None:
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


def test_a_request_that_was_begun_goes_on_before_the_others_begin(crowded: Decoder) -> None:
    order: list[str] = []

    async def one(name: str, images: int) -> None:
        await crowded.decode(
            [SMALL] * images, SPEC, deadline=time.monotonic() + SECONDS, observe=lambda *_: None
        )
        order.append(name)

    async def both() -> None:
        await asyncio.gather(one("large", 20), one("small", 1))

    asyncio.run(both())
    assert order == ["large", "small"]


def test_who_waits_past_the_deadline_or_leaves_holds_up_nobody(crowded: Decoder) -> None:
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
        assert len(crowded._waiting) == 3  # two were told to go on
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
