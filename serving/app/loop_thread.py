"""Run coroutines from threads: in the worker's event loop or, under another server, in a loop of
a background thread.

Knows asyncio; knows nothing of the coroutines.
"""

import asyncio
import contextvars
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
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine, block the calling thread, and return the result."""
        # In an empty context: the loop and its timers would keep Flask's request in memory.
        submit, loop = asyncio.run_coroutine_threadsafe, self._running()
        return contextvars.Context().run(submit, coroutine, loop).result()

    def close(self) -> None:
        """Cancel all tasks, and stop and close the loop, if it was started here."""
        if self._thread is not None and self._loop is not None:
            self.run(_cancel_all())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
                self._thread.start()
            return self._loop


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # transports that are closing close their sockets
