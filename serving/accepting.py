"""Which worker takes a new connection, which has too many, and how many one may have.

Knows asyncio, listening sockets and the server that gets what they bring; knows nothing of gunicorn
or of HTTP.
"""

import asyncio
import errno
import logging
import mmap
import socket
import time
from collections.abc import Callable

from serving import listeners
from serving.http import Connection, Server

logger = logging.getLogger(__name__)

NONE = -1  # a slot that no worker has, or whose worker does not accept

# Seconds after which a worker that says nothing is left alone: it speaks once a second.
STALE = 3.0

# Seconds that a worker with more connections than another leaves a new one to it, and for which it
# leaves it none where it did not take that one.
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

Fewest = tuple[int, int]  # active connections, slot


def excess(active: int, fewest: Fewest | None) -> int:
    """How many connections a worker ends with their next answer, for their clients to come back to
    the one that has the fewest: a worker that was replaced would have none of the old ones."""
    if fewest is None or active <= _enough(fewest) + 1:
        return 0
    return min(AT_ONCE, (active - fewest[0]) // 2)


def _enough(fewest: Fewest) -> int:
    """Connections with which a worker takes more: as many as another has, and a fourth, so that a
    storm must not wait for the others."""
    return fewest[0] + fewest[0] // 4


class Shares:
    """How many active connections each worker has, in memory that the workers inherit."""

    def __init__(self, slots: int = 1024) -> None:
        memory = memoryview(mmap.mmap(-1, 16 * slots))
        self._counts = memory[: 8 * slots].cast("q")
        self._told = memory[8 * slots :].cast("d")  # when, a ``time.monotonic()``
        for slot in range(slots):
            self._counts[slot] = NONE

    def tell(self, slot: int, count: int) -> None:
        """The worker in this slot has so many."""
        self._counts[slot], self._told[slot] = count, time.monotonic()

    def fewest(self, slots: int, *, but: int) -> Fewest | None:
        """Who of the others has the fewest, in the first ``slots``; None where nobody accepts."""
        since = time.monotonic() - STALE
        return min(
            (
                (count, slot)
                for slot, count in enumerate(self._counts[:slots])
                if slot != but and count != NONE and self._told[slot] > since
            ),
            default=None,
        )


class Accepting:
    """Takes the connections of one listener, and leaves them to workers that have fewer active
    ones."""

    def __init__(
        self,
        server: Server,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        *,
        fewest: Callable[[], Fewest | None] = lambda: None,
        most: int = MOST,
    ) -> None:
        """``fewest`` tells which of the other workers has the fewest."""
        self._server, self._loop, self._listener = server, loop, listener
        self._fewest, self._most = fewest, most
        self._left_to: Fewest | None = None
        self._until = 0.0  # it is left to them
        listener.setblocking(False)
        loop.add_reader(listener, self._comes)

    def refuse(self) -> None:
        """Let no new connection begin."""
        listeners.refuse_connections(self._listener)

    def stop(self) -> None:
        """Take no more, and close the listener."""
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _comes(self) -> None:
        for _ in range(AT_ONCE):
            if self._leaves():
                return
            try:
                client, _ = self._listener.accept()
            except OSError as exc:
                if exc.errno in _EXHAUSTED:
                    self._make_room()
                    self._back_off(str(exc.strerror))
                return  # none is left: another worker took it
            client.setblocking(False)
            self._server.comes(1)
            self._loop.create_task(self._connected(client))
            if self._server.clients > self._most:
                if not self._make_room():
                    self._back_off(f"All of {self._most} connections are at work")
                return  # what was closed is gone in the next step of the loop

    def _make_room(self) -> bool:
        return self._server.make_room(self._most // ROOM or 1)

    def _leaves(self) -> bool:
        """Whether the next one is left to another worker, for a moment."""
        fewest = self._fewest()
        if fewest is None or self._server.active <= _enough(fewest):
            self._left_to = None
            return False
        now = self._loop.time()
        if fewest != self._left_to or now >= self._until + FORFEIT:
            self._left_to, self._until = fewest, now + COURTESY
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
        server, loop = self._server, self._loop
        try:
            await loop.connect_accepted_socket(lambda: Connection(server, loop), client)
        except OSError:  # it has gone already
            client.close()
        finally:
            server.comes(-1)
