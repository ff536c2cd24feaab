"""Places are bounded, and given back."""

import pytest

from serving.errors import Overloaded
from serving.inference.admission import Admission


@pytest.fixture
def admission() -> Admission:
    return Admission(max_requests=2, max_images=4, max_bytes=100)


def test_requests_are_admitted_up_to_the_bound(admission: Admission) -> None:
    with (
        admission.request(0),
        admission.request(0),
        pytest.raises(Overloaded, match="All 2 places for requests are taken"),
        admission.request(0),
    ):
        pass
    with admission.request(0), admission.request(0):
        pass


def test_the_bodies_of_requests_have_so_many_bytes_and_no_more(admission: Admission) -> None:
    with admission.request(60):
        with pytest.raises(Overloaded, match="hold 60 of 100 bytes"), admission.request(41):
            pass
        with admission.receiving() as received:
            received(40)
            with pytest.raises(Overloaded, match="hold 100 of 100 bytes"):
                received(1)
    with admission.request(100):
        pass


def test_images_are_admitted_up_to_the_bound(admission: Admission) -> None:
    with (
        admission.images(3),
        admission.images(1),
        pytest.raises(Overloaded, match="holds 4 of 4 images"),
        admission.images(1),
    ):
        pass
    with admission.images(4):
        pass


def test_a_request_larger_than_the_queue_is_admitted_alone(admission: Admission) -> None:
    with admission.images(100), pytest.raises(Overloaded), admission.images(1):
        pass


def test_places_are_given_back_after_an_error(admission: Admission) -> None:
    with pytest.raises(KeyError), admission.images(4):
        raise KeyError
    with admission.images(4):
        pass
