"""Wait for what another thread or process does."""

import time
from collections.abc import Callable


def until(true: Callable[[], object], *, seconds: float = 60) -> None:
    """Return as soon as it is true; fail if it never is."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)
