"""Admission control: every bound is exact, and every place is given back."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import wraps

import pytest

from serving.errors import BodyTooSlow, Overloaded
from serving.inference import admission as module
from serving.inference.admission import SMALL, Admission

MAX = 128 * SMALL  # bytes


@pytest.fixture
def admission() -> Admission:
    return Admission(max_requests=2, max_images=4, max_bytes=MAX)


def in_loop(test: Callable[[Admission], Awaitable[None]]) -> Callable[[Admission], None]:
    """Run a test in an event loop."""

    @wraps(test)
    def run(admission: Admission) -> None:
        async def main() -> None:
            await test(admission)

        asyncio.run(main())

    return run


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


@in_loop
async def test_the_bytes_of_all_bodies_are_bounded(admission: Admission) -> None:
    with admission.request(88 * SMALL):
        with pytest.raises(Overloaded, match="hold"), admission.request(40 * SMALL + 1):
            pass
        with admission.receiving() as received:
            received(30 * SMALL)
            received(10 * SMALL)
            with pytest.raises(Overloaded, match=f"hold {MAX} of {MAX} bytes"):
                received(1)
        with admission.request(40 * SMALL):
            pass
    with admission.request(MAX):
        pass
    with pytest.raises(Overloaded, match=f"hold 0 of {MAX} bytes"), admission.request(MAX + 1):
        pass


@in_loop
async def test_small_bodies_have_a_reserve(admission: Admission) -> None:
    with admission.request(MAX), ExitStack() as stack:
        for _ in range(16):
            received = stack.enter_context(admission.receiving())
            received(SMALL)
        with pytest.raises(Overloaded), admission.holding(1):
            pass
    assert admission._bytes == 0


@in_loop
async def test_the_next_byte_of_a_small_body_may_make_it_a_large_one(admission: Admission) -> None:
    with admission.request(MAX), admission.receiving() as received:
        received(SMALL)
        with pytest.raises(Overloaded, match=f"of {MAX} bytes"):
            received(1)


async def stall(admission: Admission, size: int, *, seconds: float | None = None) -> None:
    """Receive a part of a body, and wait for the next one as the engine does."""
    try:
        with admission.receiving() as received:
            async with asyncio.timeout(seconds):
                received(size)
                await asyncio.get_running_loop().create_future()
    except TimeoutError:
        raise BodyTooSlow("slow") from None


@in_loop
async def test_the_largest_body_that_stalls_is_given_up_first(admission: Admission) -> None:
    sizes = [38 * SMALL, 60 * SMALL, 30 * SMALL]
    slow = [asyncio.create_task(stall(admission, size)) for size in sizes]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded), admission.holding(2 * SMALL):  # they may still go on
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STALLED", -1.0)
        with admission.receiving() as received:
            for _ in range(3):
                received(20 * SMALL)
            await asyncio.sleep(0)
            assert [each.done() for each in slow] == [False, True, False]
            received(30 * SMALL)  # although this body is the largest
            await asyncio.sleep(0)
            assert [each.done() for each in slow] == [True, True, False]
    with pytest.raises(Overloaded, match="arrived too slowly"):
        await slow[1]
    slow[2].cancel()
    for each in (slow[0], slow[2]):
        with suppress(Overloaded, asyncio.CancelledError):
            await each
    assert (admission._bytes, admission._arriving) == (0, set())


@in_loop
async def test_a_client_that_leaves_a_body_given_up_is_no_error_of_ours(
    admission: Admission,
) -> None:
    slow = asyncio.create_task(stall(admission, MAX))
    await asyncio.sleep(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STALLED", -1.0)
        with admission.holding(2 * SMALL):
            slow.cancel()  # the connection is lost at the same time
            with pytest.raises(asyncio.CancelledError):
                await slow
    late = asyncio.create_task(stall(admission, MAX, seconds=0.0))
    with pytest.raises(BodyTooSlow):
        await late
    assert admission._bytes == 0


@in_loop
async def test_a_body_that_arrives_in_time_is_not_given_up(admission: Admission) -> None:
    body = module._Arriving(None)
    body._progressed_at -= 2 * module.STALLED
    body.add(module.PROGRESS - 1)
    assert body.stalled
    body.add(1)
    assert not body.stalled


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


@in_loop
async def test_places_are_given_back_after_an_error(admission: Admission) -> None:
    for _ in range(3):
        with pytest.raises(KeyError), admission.request(MAX), admission.images(4):
            raise KeyError
        with admission.receiving() as received, suppress(Overloaded):
            received(MAX)
            received(1)
    assert admission._bytes == 0


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
