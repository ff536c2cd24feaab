"""Joining and the deadline, in one event loop as in a worker."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.errors import DeadlineExceeded
from serving.inference.batcher import IN_LOOP, IN_THREAD, MAX_BATCH, Batcher, batch_limit
from serving.inference.models.model import Model
from tests.serving.samples import publish

BLACK = np.zeros((1, 8, 6, 1), dtype=np.uint8)


class Recorded(Model):
    """A model that notes what it is given; a gate lets it wait. It takes as long as a test says."""

    said = IN_LOOP / MAX_BATCH

    @property
    def seconds(self) -> float:
        return self.said

    @seconds.setter
    def seconds(self, _: float) -> None:
        """What was measured."""

    def __init__(self, path: Path) -> None:
        self.batches: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(path / "model.onnx", name="shade", version=1)
        self.batches.clear()

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.gate.wait()
        self.batches.append(len(batch))
        self.threads.add(threading.current_thread())
        return super().predict(batch)


@pytest.fixture
def batcher() -> Batcher:
    return Batcher(lanes=1)


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Recorded]:
    made = Recorded(publish(tmp_path))
    yield made
    made.gate.set()


def ignore(_: str, __: float) -> None:
    """A measure that nobody reads."""


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def grey(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.broadcast_to(values[:, None, None, None], (len(values), 8, 6, 1)).copy()


def test_what_waits_is_joined_and_each_gets_its_own(batcher: Batcher, model: Recorded) -> None:
    async def ask() -> list[NDArray[np.float32]]:
        sizes = [1, 2, 3, 1]
        batches = [grey(np.arange(n, dtype=np.uint8) + 10 * n) for n in sizes]
        return await asyncio.gather(
            *(batcher.predict(model, each, deadline=soon(), observe=ignore) for each in batches)
        )

    answers = asyncio.run(ask())
    assert model.batches == [7]
    told = [(each[:, 1] * 255).round().astype(int).tolist() for each in answers]
    assert told == [[10], [20, 21], [30, 31, 32], [10]]


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("seconds", [IN_LOOP / MAX_BATCH, 2 * IN_LOOP], ids=["short", "long"])
def test_a_large_request_is_answered_in_order(model: Recorded, seconds: float, lanes: int) -> None:
    batcher = Batcher(lanes=lanes)
    model.said = seconds
    values = np.arange(2 * MAX_BATCH + 3, dtype=np.uint8)
    ask = batcher.predict(model, grey(values), deadline=soon(), observe=ignore)
    answers = asyncio.run(asyncio.wait_for(ask, 60))
    assert np.allclose(answers[:, 1] * 255, values, atol=1e-3)
    assert max(model.batches) == batch_limit(model)


def test_a_small_request_does_not_wait_for_all_of_a_large_one(
    batcher: Batcher, model: Recorded
) -> None:
    ended: list[str] = []

    async def ask(name: str, images: int) -> None:
        await batcher.predict(model, np.repeat(BLACK, images, 0), deadline=soon(), observe=ignore)
        ended.append(name)

    async def both() -> None:
        await asyncio.gather(ask("large", 4 * MAX_BATCH), ask("small", 1))

    asyncio.run(both())
    assert ended == ["small", "large"]
    assert sum(model.batches) == 4 * MAX_BATCH + 1


def test_models_take_turns(batcher: Batcher, model: Recorded, tmp_path: Path) -> None:
    other = Recorded(publish(tmp_path / "other"))
    turns: list[Model] = []

    async def ask(asked: Recorded, images: int) -> None:
        def observe(stage: str, _: float) -> None:
            if stage == "inference":
                turns.append(asked)

        await batcher.predict(asked, np.repeat(BLACK, images, 0), deadline=soon(), observe=observe)

    async def both() -> None:
        await asyncio.gather(ask(model, 3 * MAX_BATCH), ask(other, 3 * MAX_BATCH))

    asyncio.run(both())
    assert turns == [model, other] * 3


@pytest.mark.parametrize("on_device", [False, True])
def test_the_loop_does_not_wait_for_a_device(
    batcher: Batcher, model: Recorded, on_device: bool
) -> None:
    model.on_device = on_device
    model.threads.clear()
    asyncio.run(batcher.predict(model, BLACK, deadline=soon(), observe=ignore))
    assert (model.threads == {threading.current_thread()}) is not on_device


def test_the_fastest_run_tells_how_long_one_takes(batcher: Batcher, tmp_path: Path) -> None:
    model = Model(publish(tmp_path) / "model.onnx", name="shade", version=1)
    measured: dict[str, float] = {}

    def after(seconds: float) -> float:
        model.seconds = seconds
        ask = batcher.predict(model, BLACK, deadline=soon(), observe=measured.__setitem__)
        asyncio.run(ask)
        return model.seconds

    assert after(1e-9) == 1e-9
    assert after(60.0) == measured["inference"]


def test_waiting_ends_at_the_deadline(batcher: Batcher, model: Recorded) -> None:
    model.said = 2 * IN_LOOP  # in a thread
    model.gate.clear()

    async def ask() -> None:
        first = asyncio.ensure_future(
            batcher.predict(model, BLACK, deadline=soon(), observe=ignore)
        )
        await asyncio.sleep(0.01)
        with pytest.raises(DeadlineExceeded, match="waited in the queue"):
            await batcher.predict(model, BLACK, deadline=soon(0.01), observe=ignore)
        model.gate.set()
        await first
        await batcher.predict(model, BLACK, deadline=soon(), observe=ignore)

    asyncio.run(ask())
    assert model.batches == [1, 1]  # nothing was inferred for whom nobody waits


def test_nothing_begins_after_the_deadline(batcher: Batcher, model: Recorded) -> None:
    with pytest.raises(DeadlineExceeded, match="passed before"):
        asyncio.run(batcher.predict(model, BLACK, deadline=time.monotonic(), observe=ignore))


def test_who_has_left_is_not_inferred_for(batcher: Batcher, model: Recorded) -> None:
    async def ask() -> None:
        asked = [
            asyncio.ensure_future(batcher.predict(model, BLACK, deadline=soon(), observe=ignore))
            for _ in range(2)
        ]
        await asyncio.sleep(0)
        asked[0].cancel()
        await asked[1]

    asyncio.run(ask())
    assert model.batches in ([1], [2])  # the cancel may come as the turn does


def test_a_failure_of_the_runtime_is_told_to_each(
    batcher: Batcher, model: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(model, "predict", fail)

    async def ask() -> list[object]:
        asked = (batcher.predict(model, BLACK, deadline=soon(), observe=ignore) for _ in range(3))
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [str(each) for each in asyncio.run(ask())] == ["broken"] * 3


def test_the_wait_and_the_inference_are_measured(batcher: Batcher, model: Recorded) -> None:
    measured: dict[str, float] = {}
    asyncio.run(batcher.predict(model, BLACK, deadline=soon(), observe=measured.__setitem__))
    assert measured.keys() == {"queue", "inference"}
    assert measured["inference"] > 0


@pytest.mark.parametrize(
    ("seconds", "images"),
    [(IN_THREAD / 100, 16), (IN_THREAD / 9, 8), (IN_THREAD, 1), (10 * IN_THREAD, 1)],
)
def test_an_inference_takes_as_many_images_as_may_hold_the_loop(
    model: Recorded, seconds: float, images: int
) -> None:
    model.said = seconds
    assert batch_limit(model) == images
