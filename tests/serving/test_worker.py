"""What gunicorn's worker must do otherwise, where only its own objects show it."""

import threading
from collections.abc import Iterator

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]

from serving.worker import Worker


class Unlocked:
    """A pool whose lock is held: whoever shuts it down waits for ever."""

    def shutdown(self, *, wait: bool) -> None:
        raise AssertionError(f"The pool was shut down in a signal handler, wait={wait}.")


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(0, 0, [], None, 1, Config(), None)
    made.tpool = Unlocked()
    yield made
    made.tmp.close()


def test_a_second_signal_never_waits_for_the_pool(worker: Worker) -> None:
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(SystemExit):
        worker.handle_quit(2, None)
    assert not worker.alive
