"""Where coroutines run: the worker's event loop or, under another server, one in a thread.

Knows asyncio; knows nothing of what runs there.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Loop:
    """The one event loop of a process, for threads that are not its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """``loop`` runs elsewhere already; otherwise one is made when it is first needed."""
        self._loop = loop
        self._lock = threading.Lock()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """The result of a coroutine, waited for by the thread that calls."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running()).result()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, daemon=True).start()
            return self._loop
