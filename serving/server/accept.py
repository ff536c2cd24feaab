"""Accept connections: which worker accepts the next one, and how many a worker may hold.

Knows asyncio, listening sockets, the workers' load and the pool; knows nothing of gunicorn or HTTP.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence

from serving.server.http.connection import Connection
from serving.server.http.pool import Pool
from serving.server.load import Load, defers, least_loaded

logger = logging.getLogger(__name__)

# Seconds for which a worker leaves new connections to a less loaded one; if that accepts none, the
# worker accepts all itself for the second period.
DEFER_SECONDS = 0.02
ACCEPT_ALL_SECONDS = 1.0

# Connections accepted in one loop iteration: many may arrive together, and probes among them.
BATCH = 128

# Connections of one worker, if as many files may be open. An idle one costs 3.5 kB of memory,
# without the kernel's buffers.
MOST = 8192

# The fraction of them that is closed together to make room: the search visits all, 1 us for each.
ROOM = 16

# Seconds without accepting if there is no room.
BACK_OFF = 1.0
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """Accepts the connections of one listener, or leaves them to a less loaded worker."""

    def __init__(
        self,
        pool: Pool,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        *,
        others: Callable[[], Sequence[Load]] = tuple,
        own: Callable[[], Load] = lambda: Load(0, 0.0, 0),
        most: int = MOST,
    ) -> None:
        """``others`` returns the load of the other workers, ``own`` that of this one."""
        self._pool, self._loop, self._listener = pool, loop, listener
        self._others, self._own, self._most = others, own, most
        self._room = most // ROOM or 1
        self.spare = 0  # connections to leave to others as this worker is busier
        self._deferred_to: Load | None = None
        self._deferred_until = 0.0
        listener.setblocking(False)
        loop.add_reader(listener, self._readable)

    def drain(self, queued: int) -> None:
        """Accept what waits in the accept queue, up to ``queued`` connections, then close."""
        for _ in range(queued):
            if not self._accept():
                break
        self.close()

    def close(self) -> None:
        """Accept no more, and close the listener."""
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _readable(self) -> None:
        for _ in range(BATCH):
            if self._defers() or not self._accept():
                return

    def _accept(self) -> bool:
        """Accept a connection. Return True if there may be another, and room for it."""
        try:
            client, _ = self._listener.accept()
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                self._pool.make_room(self._room)
                self._back_off(str(exc.strerror))
            return False  # the queue is empty: another worker was faster
        client.setblocking(False)
        self._pool.open(1)
        self._loop.create_task(self._connect(client))
        if self._pool.clients > self._most:
            if not self._pool.make_room(self._room):
                self._back_off(f"All {self._most} connections are busy")
            return False  # a closed connection is gone in the next loop iteration
        return True

    def _defers(self) -> bool:
        """Return True if the next connection is left to another worker, for a moment."""
        other = least_loaded(self._others())
        if not defers(self._own(), other, spare=self.spare):
            self._deferred_to = None
            return False
        now = self._loop.time()
        if other != self._deferred_to or now >= self._deferred_until + ACCEPT_ALL_SECONDS:
            self._deferred_to, self._deferred_until = other, now + DEFER_SECONDS
            self.spare -= 1
        if now >= self._deferred_until:
            return False  # the other one did not accept
        self._pause(0.001)
        return True

    def _back_off(self, reason: str) -> None:
        logger.warning("no new connections", extra={"reason": reason, "seconds": BACK_OFF})
        self._pause(BACK_OFF)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._loop.call_later(seconds, self._continue)

    def _continue(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._readable)

    async def _connect(self, client: socket.socket) -> None:
        pool, loop = self._pool, self._loop
        try:
            await loop.connect_accepted_socket(lambda: Connection(pool, loop), client)
        except OSError:  # the client has closed
            client.close()
        finally:
            pool.open(-1)
