"""Wait for another thread or process."""

import time
from collections.abc import Callable


def until(true: Callable[[], object], *, seconds: float = 60) -> None:
    """Return once the condition is true; fail after a minute."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)
