import signal
from collections.abc import Iterator

import pytest

from training.fitting.signals import Sigterm


@pytest.fixture
def sigterm() -> Iterator[Sigterm]:
    """Handle signals in place of the process's own object."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    listening = Sigterm()
    listening.listen()
    yield listening
    for number, handler in before.items():
        signal.signal(number, handler)
