"""Run coroutines from threads: in the worker's event loop or, under another server, in a loop of
a background thread.

Knows asyncio; knows nothing of the coroutines.
"""

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
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
        # In an empty context: the loop and its timers would keep Flask's request in memory.
        return contextvars.Context().run(self._submit, coroutine).result()

    def _submit(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._running())

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, daemon=True).start()
            return self._loop
