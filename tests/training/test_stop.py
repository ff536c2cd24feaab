import signal
from collections.abc import Iterator

import pytest

from training.errors import Preempted
from training.stop import Sigterm


@pytest.fixture
def sigterm() -> Iterator[Sigterm]:
    before = signal.getsignal(signal.SIGTERM)
    listening = Sigterm()
    listening.listen()
    yield listening
    signal.signal(signal.SIGTERM, before)


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
