import signal
from collections.abc import Iterator

import pytest

from training.stop import Sigterm


@pytest.fixture
def sigterm() -> Iterator[Sigterm]:
    """One that listens in place of the process's own."""
    before = signal.getsignal(signal.SIGTERM)
    listening = Sigterm()
    listening.listen()
    yield listening
    signal.signal(signal.SIGTERM, before)
