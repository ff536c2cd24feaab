"""Admission, the lanes and the deadline."""

import math
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from serving.batcher import SLICE, Batcher, Lane
from serving.errors import DeadlineExceeded, Overloaded
from serving.model import Model
from tests.serving.samples import publish

BLACK = np.zeros((1, 8, 6, 1), dtype=np.uint8)


@pytest.fixture
def batcher() -> Batcher:
    return Batcher(lanes=1, decodes=1, max_requests=2, max_images=4)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(publish(tmp_path) / "model.onnx", name="shade", version=1)


def ignore(_: str, __: float) -> None:
    """A measure that nobody reads."""


def test_requests_are_admitted_up_to_the_bound(batcher: Batcher) -> None:
    with (
        batcher.request(),
        batcher.request(),
        pytest.raises(Overloaded, match="All 2 places for requests are taken"),
        batcher.request(),
    ):
        pass
    with batcher.request(), batcher.request():
        pass


def test_images_are_admitted_up_to_the_bound(batcher: Batcher) -> None:
    with (
        batcher.images(3),
        batcher.images(1),
        pytest.raises(Overloaded, match="holds 4 of 4 images"),
        batcher.images(1),
    ):
        pass
    with batcher.images(4):
        pass


def test_a_request_larger_than_the_queue_is_admitted_alone(batcher: Batcher) -> None:
    with batcher.images(100), pytest.raises(Overloaded), batcher.images(1):
        pass


def test_places_are_given_back_after_an_error(batcher: Batcher) -> None:
    with pytest.raises(KeyError), batcher.images(4):
        raise KeyError
    with batcher.images(4):
        pass


def test_slices_are_answered_in_order(batcher: Batcher, model: Model) -> None:
    values = np.arange(2 * SLICE + 3, dtype=np.uint8)
    batch = np.broadcast_to(values[:, None, None, None], (len(values), 8, 6, 1)).copy()
    deadline = time.monotonic() + 60
    answers = batcher.predict(model, batch, deadline=deadline, measure=ignore)
    assert np.allclose(answers[:, 1] * 255, values, atol=1e-3)


def wait_for(lane: Lane, *, waiting: int) -> None:
    while len(lane._waiting) < waiting:
        time.sleep(0.001)


def test_waiting_ends_at_the_deadline(batcher: Batcher, model: Model) -> None:
    with (
        batcher.inferences.turn("test", deadline=math.inf, measure=ignore),
        pytest.raises(DeadlineExceeded, match="waited in the queue"),
    ):
        batcher.predict(model, BLACK, deadline=time.monotonic() + 0.01, measure=ignore)
    batcher.predict(model, BLACK, deadline=time.monotonic() + 60, measure=ignore)


def test_nothing_begins_after_the_deadline_though_the_lane_is_free(
    batcher: Batcher, model: Model
) -> None:
    with pytest.raises(DeadlineExceeded, match="passed before"):
        batcher.predict(model, BLACK, deadline=time.monotonic(), measure=ignore)


def test_the_wait_is_measured_as_queue(batcher: Batcher, model: Model) -> None:
    measured: dict[str, float] = {}
    arguments = {"deadline": time.monotonic() + 60, "measure": measured.__setitem__}
    waiter = threading.Thread(target=batcher.predict, args=(model, BLACK), kwargs=arguments)
    with batcher.inferences.turn("test", deadline=math.inf, measure=ignore):
        waiter.start()
        wait_for(batcher.inferences, waiting=1)
        seen = time.monotonic()
        time.sleep(0.01)
        held = time.monotonic() - seen
    waiter.join()
    assert measured["queue"] >= held
    assert measured["inference"] > 0


def test_a_small_request_runs_between_the_slices_of_a_large_one(
    batcher: Batcher, model: Model
) -> None:
    turns: list[str] = []
    deadline = time.monotonic() + 60

    def run(name: str, images: int) -> None:
        def measure(stage: str, _: float) -> None:
            if stage == "queue":  # its turn has just begun
                turns.append(name)
                if turns == ["large"]:
                    small.start()
                    wait_for(batcher.inferences, waiting=1)

        batcher.predict(model, np.repeat(BLACK, images, 0), deadline=deadline, measure=measure)

    small = threading.Thread(target=run, args=("small", 1))
    run("large", 4 * SLICE)
    small.join()
    assert turns == ["large", "small", "large", "large", "large"]


def test_a_lane_is_as_wide_as_it_says() -> None:
    lane = Lane(2)
    with (
        lane.turn("test", deadline=math.inf, measure=ignore),
        lane.turn("test", deadline=math.inf, measure=ignore),
        pytest.raises(DeadlineExceeded),
        lane.turn("test", deadline=time.monotonic() + 0.01, measure=ignore),
    ):
        pass


def test_a_place_is_given_back_after_an_error() -> None:
    lane = Lane(1)
    for _ in range(2):
        with pytest.raises(KeyError), lane.turn("test", deadline=math.inf, measure=ignore):
            raise KeyError
