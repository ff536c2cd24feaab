"""Admission, the lane and the deadline."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from serving.batcher import SLICE, Batcher
from serving.errors import DeadlineExceeded, Overloaded
from serving.model import Model
from tests.serving.samples import publish


@pytest.fixture
def batcher() -> Batcher:
    return Batcher(lanes=1, max_requests=2, max_images=4)


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


def test_waiting_ends_at_the_deadline(batcher: Batcher, model: Model) -> None:
    image = np.zeros((1, 8, 6, 1), dtype=np.uint8)
    with batcher._lane, pytest.raises(DeadlineExceeded):
        batcher.predict(model, image, deadline=time.monotonic() + 0.01, measure=ignore)
    batcher.predict(model, image, deadline=time.monotonic() + 60, measure=ignore)


def test_the_wait_is_measured_as_queue(batcher: Batcher, model: Model) -> None:
    measured: dict[str, float] = {}
    image = np.zeros((1, 8, 6, 1), dtype=np.uint8)
    batcher._lane.acquire()
    threading.Timer(0.2, batcher._lane.release).start()
    deadline = time.monotonic() + 60
    batcher.predict(model, image, deadline=deadline, measure=measured.__setitem__)
    assert measured["queue"] > measured["inference"]
