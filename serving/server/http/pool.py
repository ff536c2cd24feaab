"""What all connections of a process share: how they are answered, who of them works and who goes.

Knows connections by what they tell of themselves; knows no socket and nothing of HTTP.
"""

import heapq
import math
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from serving.server.http.message import Answer, Request

if TYPE_CHECKING:
    from serving.server.http.connection import Connection

# Returns the answer, or a coroutine where the answer must be waited for.
Respond = Callable[[Request], Answer | Coroutine[Any, Any, Answer]]


class Server:
    """What all connections of a process share."""

    def __init__(self, respond: Respond, *, keep_alive: float) -> None:
        """An exception of ``respond`` is a bug, and closes the connection; an idle connection is
        closed after ``keep_alive`` seconds."""
        self.respond, self.keep_alive = respond, keep_alive
        self.connections: set[Connection] = set()
        self.stops = False  # from now on each answer ends its connection
        self.at_work = 0  # requests that are being answered, or will be at once
        self.changed: Callable[[int], None] = lambda _: None  # told how many are active
        self._coming = 0  # accepted, but not made yet
        self._active = 0

    @property
    def clients(self) -> int:
        """How many there are, those included that were accepted just now."""
        return len(self.connections) + self._coming

    @property
    def active(self) -> int:
        """How many of them were answered since the last look but one, or are new: those that are
        silent, or drip, are no work."""
        return self._active + self._coming

    def comes(self, change: int) -> None:
        """A client was accepted (1); its connection is made, or failed (-1)."""
        self._coming += change
        self.changed(self.active)

    def made(self, connection: "Connection") -> None:
        """A client has come."""
        self.connections.add(connection)
        self.acts(1)

    def lost(self, connection: "Connection") -> None:
        """It has gone."""
        self.connections.discard(connection)
        self.acts(-connection.active)

    def acts(self, change: int) -> None:
        """A connection has become active (1), or is no longer (-1)."""
        self._active += change
        self.changed(self.active)

    def look(self) -> None:
        """See which are active; called once a second."""
        for each in self.connections:
            if each.active and not each.answered:
                each.active = False
                self._active -= 1
            each.answers, each.answered, each.goes = each.answered, 0, False
        self.changed(self.active)

    def let_go(self, part: float) -> None:
        """End connections with their next answers: those that got the most of the last second's, up
        to such a part of them."""
        if not part:
            return
        most = part * sum(each.answers for each in self.connections)
        for each in sorted(self.connections, key=lambda each: -each.answers):
            if 0 < each.answers <= most:
                each.goes = True
                most -= each.answers

    def make_room(self, count: int) -> bool:
        """End so many connections that wait for their client, those that have the least time left;
        whether there was any."""
        waiting = [each for each in self.connections if each.closes_at < math.inf]
        for each in heapq.nsmallest(count, waiting, key=lambda each: each.closes_at):
            each.abort()
        return bool(waiting)
