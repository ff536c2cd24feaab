"""What the connections of one process share: the handlers, the limits, and who is busy.

Knows connections by a Protocol; knows no socket, and nothing of HTTP but requests and answers.
"""

import heapq
import math
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from serving.server.http.message import Answer, Request


class Connection(Protocol):
    """What the pool needs of a connection."""

    active: bool  # answered since the last ``refresh`` but one, or new
    answered: int  # requests since the last ``refresh``
    answered_before: int  # requests between that ``refresh`` and the one before
    close_after_answer: bool

    @property
    def idle(self) -> bool:
        """Return True if no request waits for its answer."""

    @property
    def closes_at(self) -> float:
        """When it times out, in the loop's time; infinite while the server is working."""

    def abort(self) -> None:
        """Close at once."""

    def close(self) -> None:
        """Close when everything written is sent."""


class Pool:
    """The connections of one process."""

    def __init__(
        self,
        respond: Callable[[Request], Answer | Coroutine[Any, Any, Answer]],
        *,
        failure: Answer,
        keep_alive: float,
    ) -> None:
        """``respond`` returns an answer, or a coroutine where the answer must be waited for. If it
        raises, ``failure`` is sent and the connection ends. ``keep_alive`` is the keep-alive
        timeout, in seconds.
        """
        self.respond, self.failure, self.keep_alive = respond, failure, keep_alive
        self.connections: set[Connection] = set()
        self.stopping = False  # every answer ends its connection
        self.in_progress = 0  # connections with a request that is being answered
        self.active_changed: Callable[[int], None] = lambda _: None
        self._opening = self._active = 0

    @property
    def clients(self) -> int:
        """The number of connections, those included that were accepted just now."""
        return len(self.connections) + self._opening

    @property
    def active(self) -> int:
        """The number of connections in use: new, or answered within about a second."""
        return self._active + self._opening

    def open(self, change: int) -> None:
        """Count a client as accepted (1), and as no longer opening its connection (-1)."""
        self._opening += change
        self.active_changed(self.active)

    def add(self, connection: Connection) -> None:
        """Add a new connection."""
        self.connections.add(connection)
        self.activate(1)

    def remove(self, connection: Connection) -> None:
        """Remove a connection that was lost."""
        self.connections.discard(connection)
        self.activate(-connection.active)

    def activate(self, change: int) -> None:
        """Count a connection as active (1), or no longer (-1)."""
        self._active += change
        self.active_changed(self.active)

    def refresh(self) -> None:
        """Find out which connections are active; called once a second."""
        for each in self.connections:
            if each.active and not each.answered:
                each.active = False
                self._active -= 1
            each.answered_before, each.answered = each.answered, 0
            each.close_after_answer = False
        self.active_changed(self.active)

    def rebalance(self, fraction: float) -> None:
        """Mark the busiest connections for ``Connection: close``, up to a fraction of the load."""
        if not fraction:
            return
        most = fraction * sum(each.answered_before for each in self.connections)
        for each in sorted(self.connections, key=lambda each: -each.answered_before):
            if 0 < each.answered_before <= most:
                each.close_after_answer = True
                most -= each.answered_before

    def make_room(self, count: int) -> bool:
        """Close the ``count`` connections that would time out first; return True if any would."""
        waiting = [each for each in self.connections if each.closes_at < math.inf]
        for each in heapq.nsmallest(count, waiting, key=lambda each: each.closes_at):
            each.abort()
        return bool(waiting)

    def close_idle(self) -> None:
        """Close every connection without a request."""
        for each in [each for each in self.connections if each.idle]:
            each.close()
