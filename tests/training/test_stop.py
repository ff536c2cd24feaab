import signal

import pytest

from training.errors import Preempted
from training.stop import Sigterm


def test_sigterm_stops_at_once(sigterm: Sigterm) -> None:
    with pytest.raises(Preempted, match="The same command goes on") as raised:
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.exit_code == 75


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
    sigterm.hold()
    signal.raise_signal(signal.SIGTERM)
    sigterm.let_go()
    assert sigterm.arrived
