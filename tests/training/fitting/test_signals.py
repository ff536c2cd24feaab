import signal
from contextlib import suppress

import pytest

from training.errors import Preempted
from training.fitting.signals import Sigterm


def test_sigterm_stops_at_once(sigterm: Sigterm) -> None:
    with pytest.raises(Preempted, match="The same command resumes") as raised:
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.exit_code == 75


def test_a_library_that_continues_after_any_exception_does_not_swallow_it(
    sigterm: Sigterm,
) -> None:
    with pytest.raises(Preempted), suppress(Exception):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_a_library_swallowed_is_reported_at_the_next_check(
    sigterm: Sigterm,
) -> None:
    with suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Preempted):
        sigterm.release()


def test_ctrl_c_stops_like_sigterm_and_a_second_one_at_once(sigterm: Sigterm) -> None:
    sigterm.hold()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Preempted, match="The same command resumes") as raised:
        sigterm.release()
    assert raised.value.exit_code == 130


def test_sigterm_after_ctrl_c_is_reported_as_sigterm(sigterm: Sigterm) -> None:
    sigterm.hold()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Preempted, match="SIGTERM"):
        sigterm.release()


def test_sigterm_is_deferred_while_held(sigterm: Sigterm) -> None:
    sigterm.hold()
    signal.raise_signal(signal.SIGTERM)
    assert sigterm.received
    with pytest.raises(Preempted):
        sigterm.release()


def test_nothing_stops_without_a_signal(sigterm: Sigterm) -> None:
    sigterm.hold()
    sigterm.release()
    assert not sigterm.received


def test_an_error_is_not_hidden_by_a_deferred_signal(sigterm: Sigterm) -> None:
    def fail() -> None:
        sigterm.hold()
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("what went wrong")

    with pytest.raises(ValueError, match="what went wrong"), sigterm.released_at_end():
        fail()
    with pytest.raises(Preempted):
        signal.raise_signal(signal.SIGTERM)  # a further one is not deferred


def test_a_signal_that_a_library_turned_into_another_error_is_reported_as_a_signal(
    sigterm: Sigterm,
) -> None:
    def trace() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as exc:
            raise TypeError("Failed to convert elements of (None,) to Tensor.") from exc

    with pytest.raises(Preempted, match=r"^Stopped by SIGTERM"), sigterm.released_at_end():
        trace()


def test_a_deferred_signal_stops_at_the_end_of_the_block(sigterm: Sigterm) -> None:
    def work() -> None:
        sigterm.hold()
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Preempted), sigterm.released_at_end():
        work()
