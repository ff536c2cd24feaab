"""Wait until another thread or process has done something."""

import time
from collections.abc import Callable


def until(true: Callable[[], object], *, seconds: float = 60) -> None:
    """Poll until ``true`` is; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)
