"""Which worker takes a new connection, and how many one may have.

Knows asyncio, listening sockets, the shares of the workers and the server that gets what comes;
knows nothing of gunicorn or of HTTP.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence

from serving.server.http.connection import Connection
from serving.server.http.pool import Pool
from serving.server.load import Share, least, leaves

logger = logging.getLogger(__name__)

# Seconds for which a worker leaves a new connection to one that has less, and then takes all itself
# where that one did not take it.
COURTESY = 0.02
FORFEIT = 1.0

# Connections taken between two looks at the others: many may come at once, and probes among them.
AT_ONCE = 128

# Connections of one worker, where so many files may be open. One that idles costs 3.5 kB of memory,
# without what the kernel keeps of it.
MOST = 8192

# The part of them that is closed at once where one more comes: to find them is to look at all, and
# takes 1 us for each.
ROOM = 16

# Seconds without a new connection where there is no room for it.
BACK_OFF = 1.0
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Accepting:
    """Takes the connections of one listener, and leaves them to workers that have less."""

    def __init__(
        self,
        pool: Pool,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        *,
        others: Callable[[], Sequence[Share]] = tuple,
        own: Callable[[], Share] = lambda: Share(0, 0.0, 0),
        most: int = MOST,
    ) -> None:
        """``others`` tells what the other workers have, ``own`` what this one has."""
        self._pool, self._loop, self._listener = pool, loop, listener
        self._others, self._own, self._most = others, own, most
        self.spare = 0  # connections that it leaves to others as it is busier
        self._left_to: Share | None = None
        self._until = 0.0  # it is left to them
        listener.setblocking(False)
        loop.add_reader(listener, self._comes)

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

    def _comes(self) -> None:
        for _ in range(AT_ONCE):
            if self._leaves() or not self._accept():
                return

    def _accept(self) -> bool:
        """Accept a connection. Return True if there is time and room for another."""
        try:
            client, _ = self._listener.accept()
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                self._make_room()
                self._back_off(str(exc.strerror))
            return False  # the queue is empty: another worker was faster
        client.setblocking(False)
        self._pool.open(1)
        self._loop.create_task(self._connected(client))
        if self._pool.clients > self._most:
            if not self._make_room():
                self._back_off(f"All of {self._most} connections are at work")
            return False  # what was closed is gone in the next step of the loop
        return True

    def _make_room(self) -> bool:
        return self._pool.make_room(self._most // ROOM or 1)

    def _leaves(self) -> bool:
        """Whether the next one is left to another worker, for a moment."""
        other = least(self._others())
        if not leaves(self._own(), other, spare=self.spare):
            self._left_to = None
            return False
        now = self._loop.time()
        if other != self._left_to or now >= self._until + FORFEIT:
            self._left_to, self._until = other, now + COURTESY
            self.spare -= 1
        if now >= self._until:
            return False  # it took none: all that wait are taken here
        self._pause(0.001)
        return True

    def _back_off(self, reason: str) -> None:
        logger.warning("no new connections", extra={"reason": reason, "seconds": BACK_OFF})
        self._pause(BACK_OFF)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._loop.call_later(seconds, self._again)

    def _again(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._comes)

    async def _connected(self, client: socket.socket) -> None:
        pool, loop = self._pool, self._loop
        try:
            await loop.connect_accepted_socket(lambda: Connection(pool, loop), client)
        except OSError:  # it has gone already
            client.close()
        finally:
            pool.open(-1)
