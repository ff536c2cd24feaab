"""Run coroutines from threads: in the worker's event loop or, under another server, in a loop of
a background thread.

Knows asyncio; knows nothing of the coroutines.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Loop:
    """The one event loop of a process, for all other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Use ``loop``, which runs elsewhere, or start one when it is first needed."""
        self._loop = loop
        self._lock = threading.Lock()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine, block the calling thread, and return the result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running()).result()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, daemon=True).start()
            return self._loop
