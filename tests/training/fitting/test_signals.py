import signal

import pytest

from training.errors import Preempted
from training.fitting.signals import Sigterm


def test_sigterm_stops_at_once(sigterm: Sigterm) -> None:
    with pytest.raises(Preempted, match="The same command goes on") as raised:
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.exit_code == 75


def test_ctrl_c_stops_as_sigterm_does_and_a_second_one_at_once(sigterm: Sigterm) -> None:
    sigterm.hold()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Preempted, match="The same command goes on") as raised:
        sigterm.release()
    assert raised.value.exit_code == 130


def test_sigterm_after_ctrl_c_is_what_is_told(sigterm: Sigterm) -> None:
    sigterm.hold()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Preempted, match="SIGTERM"):
        sigterm.release()


def test_sigterm_waits_while_it_is_held(sigterm: Sigterm) -> None:
    sigterm.hold()
    signal.raise_signal(signal.SIGTERM)
    assert sigterm.arrived
    with pytest.raises(Preempted):
        sigterm.release()


def test_nothing_stops_where_no_signal_came(sigterm: Sigterm) -> None:
    sigterm.hold()
    sigterm.release()
    assert not sigterm.arrived


def test_an_error_under_way_is_not_hidden_by_a_signal_that_waited(sigterm: Sigterm) -> None:
    def fail() -> None:
        sigterm.hold()
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("what went wrong")

    with pytest.raises(ValueError, match="what went wrong"), sigterm.heard():
        fail()
    with pytest.raises(Preempted):
        signal.raise_signal(signal.SIGTERM)  # another one is not held any more


@pytest.mark.parametrize("told", [Preempted, TypeError])
def test_a_signal_that_a_layer_has_told_is_told_in_our_words(
    sigterm: Sigterm, told: type[Exception]
) -> None:
    def trace() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Preempted as exc:
            raise told("Failed to convert elements of (None,) to Tensor.") from exc

    with pytest.raises(Preempted, match=r"^Stopped by SIGTERM"), sigterm.heard():
        trace()


def test_a_signal_that_waited_stops_at_the_end_of_what_held_it(sigterm: Sigterm) -> None:
    def work() -> None:
        sigterm.hold()
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Preempted), sigterm.heard():
        work()
