"""Micro-batching and deadlines, in one event loop as in a worker."""

import asyncio
import threading
import time
from collections import defaultdict
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
    """A model that records its batches and waits at a gate; a test sets its ``pace``."""

    pace = IN_LOOP / MAX_BATCH

    @property
    def seconds(self) -> float:
        return self.pace

    @seconds.setter
    def seconds(self, _: float) -> None:
        """Ignore the measurement."""

    def __init__(self, path: Path) -> None:
        self.batches: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(path / "model.onnx", name="shade", version=1)
        self.batches.clear()

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.gate.wait()
        self.batches.append(len(batch))
        self.threads.add(threading.current_thread())
        return super().infer(batch)


@pytest.fixture
def batcher() -> Batcher:
    return Batcher(lanes=1)


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Recorded]:
    made = Recorded(publish(tmp_path))
    yield made
    made.gate.set()


class Log(defaultdict[str, float]):
    """The seconds of each stage, with a list of what was added in turn."""

    def __init__(self) -> None:
        super().__init__(float)
        self.added: list[tuple[str, float]] = []

    def __setitem__(self, stage: str, seconds: float) -> None:
        if stage in self or seconds:
            self.added.append((stage, seconds - self.get(stage, 0.0)))
        super().__setitem__(stage, seconds)


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def grey(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.broadcast_to(values[:, None, None, None], (len(values), 8, 6, 1)).copy()


def levels(answer: NDArray[np.float32]) -> list[int]:
    """Return the brightness that each row of an answer stands for."""
    return [round(255 * float(light)) for light in answer[:, 1]]


@pytest.mark.parametrize("sizes", [[1, 2, 3, 1], [3, 1, 2], [2, 2, 2], [1, 1]], ids=str)
@pytest.mark.parametrize("pace", [IN_LOOP / MAX_BATCH, IN_THREAD / 16], ids=["loop", "thread"])
def test_waiting_requests_share_an_inference_and_each_gets_its_own_rows(
    batcher: Batcher, model: Recorded, sizes: list[int], pace: float
) -> None:
    model.pace = pace
    values = [np.arange(n, dtype=np.uint8) + 40 * place for place, n in enumerate(sizes)]

    async def ask() -> list[NDArray[np.float32]]:
        return await asyncio.gather(
            *(batcher.predict(model, grey(each), deadline=soon(), spent=Log()) for each in values)
        )

    answers = asyncio.run(ask())
    assert model.batches == [sum(sizes)]
    assert [levels(each) for each in answers] == [each.tolist() for each in values]


def test_requests_that_share_several_inferences_get_their_own_rows(
    batcher: Batcher, model: Recorded
) -> None:
    """The second inference begins in the middle of the large request, and a third is needed."""
    values = [np.arange(n, dtype=np.uint8) + 60 * place for place, n in enumerate((20, 3, 20, 2))]

    async def ask() -> list[NDArray[np.float32]]:
        return await asyncio.gather(
            *(batcher.predict(model, grey(each), deadline=soon(), spent=Log()) for each in values)
        )

    answers = asyncio.run(ask())
    assert model.batches == [16, 16, 13]
    assert [levels(each) for each in answers] == [each.tolist() for each in values]


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("seconds", [IN_LOOP / MAX_BATCH, 2 * IN_LOOP], ids=["short", "long"])
def test_a_large_request_is_answered_in_order(model: Recorded, seconds: float, lanes: int) -> None:
    batcher = Batcher(lanes=lanes)
    model.pace = seconds
    values = np.arange(2 * MAX_BATCH + 3, dtype=np.uint8)
    ask = batcher.predict(model, grey(values), deadline=soon(), spent=Log())
    answers = asyncio.run(asyncio.wait_for(ask, 60))
    assert answers.dtype == np.float32
    assert np.allclose(answers[:, 1] * 255, values, atol=1e-3)
    assert max(model.batches) == batch_limit(model)


def test_a_small_request_does_not_wait_for_a_whole_large_one(
    batcher: Batcher, model: Recorded
) -> None:
    ended: list[str] = []

    async def ask(name: str, images: int) -> None:
        await batcher.predict(model, np.repeat(BLACK, images, 0), deadline=soon(), spent=Log())
        ended.append(name)

    async def both() -> None:
        await asyncio.gather(ask("large", 4 * MAX_BATCH), ask("small", 1))

    asyncio.run(both())
    assert ended == ["small", "large"]
    assert sum(model.batches) == 4 * MAX_BATCH + 1


def test_models_alternate(batcher: Batcher, model: Recorded, tmp_path: Path) -> None:
    other = Recorded(publish(tmp_path / "other"))
    turns: list[Model] = []

    async def ask(asked: Recorded, images: int) -> None:
        class Turns(Log):
            def __setitem__(self, stage: str, seconds: float) -> None:
                super().__setitem__(stage, seconds)
                if stage == "inference" and seconds:
                    turns.append(asked)

        await batcher.predict(asked, np.repeat(BLACK, images, 0), deadline=soon(), spent=Turns())

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
    asyncio.run(batcher.predict(model, BLACK, deadline=soon(), spent=Log()))
    assert (model.threads == {threading.current_thread()}) is not on_device


def test_the_fastest_inference_counts_as_the_time_of_an_image(
    batcher: Batcher, tmp_path: Path
) -> None:
    model = Model(publish(tmp_path) / "model.onnx", name="shade", version=1)

    def after(seconds: float) -> tuple[float, float]:
        spent = Log()
        model.seconds = seconds
        asyncio.run(batcher.predict(model, BLACK, deadline=soon(), spent=spent))
        return model.seconds, spent["inference"]

    assert after(1e-9)[0] == 1e-9
    kept, measured = after(60.0)
    assert kept == measured


def test_the_time_of_an_inference_is_divided_by_its_images(
    batcher: Batcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(publish(tmp_path) / "model.onnx", name="shade", version=1)
    model.seconds = IN_LOOP / 4
    clock = iter((1.0, 2.0, 2.002))  # the request joins, its inference starts and ends
    spent = Log()
    batch = np.repeat(BLACK, 4, 0)

    async def ask() -> None:
        with monkeypatch.context() as patch:
            patch.setattr("serving.inference.batcher.time.monotonic", lambda: next(clock, 2.002))
            batcher.active_requests = lambda: 1
            await batcher.predict(model, batch, deadline=60.0, spent=spent)

    asyncio.run(ask())
    assert spent == {"queue": 1.0, "inference": pytest.approx(0.002)}
    assert model.seconds == pytest.approx(0.0005)


def test_waiting_ends_at_the_deadline(batcher: Batcher, model: Recorded) -> None:
    model.pace = 2 * IN_LOOP  # in a thread
    model.gate.clear()

    async def ask() -> None:
        first = asyncio.ensure_future(batcher.predict(model, BLACK, deadline=soon(), spent=Log()))
        await asyncio.sleep(0.01)
        with pytest.raises(
            DeadlineExceeded, match=r"^The request waited in the queue past its deadline\.$"
        ):
            await batcher.predict(model, BLACK, deadline=soon(0.01), spent=Log())
        model.gate.set()
        await first
        await batcher.predict(model, BLACK, deadline=soon(), spent=Log())

    asyncio.run(ask())
    assert model.batches == [1, 1]  # none for the request past its deadline


def test_no_inference_starts_after_the_deadline(batcher: Batcher, model: Recorded) -> None:
    with pytest.raises(
        DeadlineExceeded, match=r"^The deadline passed before the inference started\.$"
    ):
        asyncio.run(batcher.predict(model, BLACK, deadline=time.monotonic(), spent=Log()))


def test_a_request_at_its_deadline_is_too_late(
    batcher: Batcher, model: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    with pytest.raises(
        DeadlineExceeded, match=r"^The deadline passed before the inference started\.$"
    ):
        asyncio.run(batcher.predict(model, BLACK, deadline=5.0, spent=Log()))


def test_a_cancelled_request_needs_no_inference(batcher: Batcher, model: Recorded) -> None:
    async def ask() -> None:
        asked = [
            asyncio.ensure_future(batcher.predict(model, BLACK, deadline=soon(), spent=Log()))
            for _ in range(2)
        ]
        await asyncio.sleep(0)
        asked[0].cancel()
        await asked[1]

    asyncio.run(ask())
    assert model.batches in ([1], [2])  # the cancellation may be in time or not


def test_requests_behind_a_cancelled_one_stay_in_the_inference(
    batcher: Batcher, model: Recorded
) -> None:
    async def ask() -> None:
        asked = [
            asyncio.ensure_future(batcher.predict(model, BLACK, deadline=soon(), spent=Log()))
            for _ in range(3)
        ]
        await asyncio.sleep(0)  # they wait; the inference is scheduled behind
        asked[1].cancel()
        await asyncio.gather(asked[0], asked[2])

    asyncio.run(ask())
    assert model.batches == [2]


def test_a_failed_inference_fails_every_request(
    batcher: Batcher, model: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(model, "infer", fail)

    async def ask() -> list[object]:
        asked = (batcher.predict(model, BLACK, deadline=soon(), spent=Log()) for _ in range(3))
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [str(each) for each in asyncio.run(ask())] == ["broken"] * 3


def test_the_wait_and_the_inference_are_measured(batcher: Batcher, model: Recorded) -> None:
    measured = Log()
    asyncio.run(batcher.predict(model, BLACK, deadline=soon(), spent=measured))
    assert measured.keys() == {"queue", "inference"}
    assert measured["inference"] > 0


@pytest.mark.parametrize(
    ("seconds", "images"),
    [(IN_THREAD / 100, 16), (IN_THREAD / 9, 8), (IN_THREAD, 1), (10 * IN_THREAD, 1)],
)
def test_the_images_of_an_inference_are_bounded_by_its_time(
    model: Recorded, seconds: float, images: int
) -> None:
    model.pace = seconds
    assert batch_limit(model) == images


@pytest.mark.parametrize(("active", "expected"), [(1, ["answer", "loop"]), (2, ["loop", "answer"])])
def test_only_a_request_alone_is_answered_before_the_loop_polls_its_sockets(
    batcher: Batcher, model: Recorded, active: int, expected: list[str]
) -> None:
    batcher.active_requests = lambda: active
    order: list[str] = []

    async def ask() -> None:
        asyncio.get_running_loop().call_soon(order.append, "loop")
        await batcher.predict(model, BLACK, deadline=soon(), spent=Log())
        order.append("answer")

    asyncio.run(ask())
    assert order == expected


@pytest.mark.parametrize("lanes", [1, 2])
def test_as_many_long_inferences_run_at_once_as_there_are_lanes(
    model: Recorded, lanes: int
) -> None:
    batcher = Batcher(lanes=lanes)
    model.pace = 2 * IN_THREAD
    model.gate.clear()
    running: list[int] = []

    async def ask() -> None:
        asked = [
            asyncio.ensure_future(batcher.predict(model, BLACK, deadline=soon(), spent=Log()))
            for _ in range(4)
        ]
        for _ in range(10):
            await asyncio.sleep(0)
            running.append(batcher.running)
        model.gate.set()
        await asyncio.gather(*asked)

    asyncio.run(ask())
    assert max(running) == lanes
    assert batcher.running == 0
    assert model.batches == [1] * 4


@pytest.mark.parametrize(
    ("pace", "images", "in_loop"),
    [
        *((IN_LOOP, 1, True), (IN_LOOP * 1.01, 1, False)),
        *((IN_LOOP / 2, 2, True), (IN_LOOP / 2, 3, False)),
    ],
)
def test_an_inference_runs_in_the_loop_up_to_the_bound(
    batcher: Batcher, model: Recorded, pace: float, images: int, in_loop: bool
) -> None:
    model.pace = pace
    model.threads.clear()
    batch = np.repeat(BLACK, images, 0)
    asyncio.run(batcher.predict(model, batch, deadline=soon(), spent=Log()))
    assert model.batches == [images]
    assert (model.threads == {threading.current_thread()}) is in_loop


def test_each_stage_counts_from_the_end_of_the_one_before(model: Recorded) -> None:
    """A request of three inferences waits in the queue three times."""
    batcher = Batcher(lanes=1)
    model.pace = IN_THREAD
    spent = Log()

    async def ask() -> float:
        started = time.monotonic()
        await batcher.predict(model, np.repeat(BLACK, 3, 0), deadline=soon(), spent=spent)
        return time.monotonic() - started

    total = asyncio.run(ask())
    assert [stage for stage, _ in spent.added] == ["queue", "inference"] * 3
    assert all(seconds >= 0 for _, seconds in spent.added)
    assert sum(spent.values()) <= total


def test_a_request_alone_may_run_in_a_thread(batcher: Batcher, model: Recorded) -> None:
    batcher.active_requests = lambda: 1
    model.pace = 2 * IN_LOOP
    model.threads.clear()
    asyncio.run(batcher.predict(model, BLACK, deadline=soon(), spent=Log()))
    assert [thread.name for thread in model.threads] == ["inference_0"]
