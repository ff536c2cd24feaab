"""Admission control: every bound is exact, and every place is given back."""

from contextlib import suppress

import pytest

from serving.errors import Overloaded
from serving.inference.admission import Admission


@pytest.fixture
def admission() -> Admission:
    return Admission(max_requests=2, max_images=4, max_bytes=100)


def test_requests_are_admitted_up_to_the_bound(admission: Admission) -> None:
    with admission.request(0):
        admission.check()
        with (
            admission.request(0),
            pytest.raises(Overloaded, match="All 2 places for requests are taken"),
            admission.request(0),
        ):
            pass
    with admission.request(0), admission.request(0):
        pass


def test_the_bytes_of_all_bodies_are_bounded(admission: Admission) -> None:
    with admission.request(60):
        with pytest.raises(Overloaded, match="hold 60 of 100 bytes"), admission.request(41):
            pass
        with admission.receiving() as received:
            received(30)
            received(10)
            with pytest.raises(Overloaded, match="hold 100 of 100 bytes"):
                received(1)
        with admission.request(40):
            pass
    with admission.request(100):
        pass
    with pytest.raises(Overloaded, match="hold 0 of 100 bytes"), admission.request(101):
        pass


def test_images_are_admitted_up_to_the_bound(admission: Admission) -> None:
    with (
        admission.images(3),
        admission.images(1),
        pytest.raises(Overloaded, match="holds 4 of 4 images and has no room for 1 more"),
        admission.images(1),
    ):
        pass
    with admission.images(4):
        pass


def test_a_request_larger_than_the_queue_is_admitted_alone(admission: Admission) -> None:
    with admission.images(100), pytest.raises(Overloaded), admission.images(1):
        pass
    with admission.images(1), pytest.raises(Overloaded), admission.images(100):
        pass


def test_places_are_given_back_after_an_error(admission: Admission) -> None:
    for _ in range(3):
        with pytest.raises(KeyError), admission.request(100), admission.images(4):
            raise KeyError
        with admission.receiving() as received, suppress(Overloaded):
            received(100)
            received(1)


def test_the_end_of_the_last_request_is_announced(admission: Admission) -> None:
    idle: list[bool] = []
    with admission.request(0):  # nobody listens
        assert not admission.idle
    admission.on_idle = lambda: idle.append(admission.idle)
    with admission.request(0):
        with admission.request(0):
            pass
        assert idle == []
    assert idle == [True]
