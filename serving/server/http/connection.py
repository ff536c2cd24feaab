"""HTTP/1.1 in an event loop: a connection, its requests one after another, each with its answer.

Knows asyncio; knows nothing of parsing or of routes. What a client may hold is bounded by seconds:
half a header, a body that nobody reads, answers that it does not take, and idling.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple

import orjson

from serving.errors import InternalError
from serving.server.http.message import Answer, Request, encoded
from serving.server.http.parser import Parser
from serving.server.http.pool import Server

logger = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds for a whole header, or for what nobody reads, however its bytes come
WRITE_SECONDS = 30.0  # for a client to take what was written

BUG = InternalError("A bug on our side. The log names the cause.")

Work = Coroutine[Any, Any, Answer]


class Failure(NamedTuple):
    """The answer to a request whose handler raised."""

    status: int = BUG.status
    body: bytes = orjson.dumps(BUG.body) + b"\n"
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class Connection(asyncio.Protocol):
    """One client."""

    # As the server's ``look`` sees it; one that is new is active until then.
    active = True
    answered = answers = 0  # times, since that look and before
    goes = False  # with its next answer

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server, self._loop = server, loop
        self._parser = Parser(self._wanted)
        self._ready = self._parser.ready
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._seconds: float | None = None  # that the timer was set to
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None  # while the client takes no answers
        self._half_closed = False  # the client sends no more

    # what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come, and owes a header."""
        self._transport = transport  # type: ignore[assignment]
        self._server.made(self)
        self._wait(PATIENCE)

    def connection_lost(self, _: Exception | None) -> None:
        """It has gone; what is being done for it is given up."""
        self._wait(None)
        self._server.lost(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse it; begin what is ready."""
        if not self._parser.over:
            self._parser.feed(data)
            self._begin()

    def eof_received(self) -> bool:
        """The client sends no more; what it asked for is answered all the same."""
        self._half_closed = True
        self._parser.end()
        return bool(self._ready)

    def pause_writing(self) -> None:
        """The client does not take its answers: write no more of them."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """It took them."""
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None
            self._watch()

    # requests and their answers

    @property
    def idle(self) -> bool:
        """Whether no request waits for its answer."""
        return not self._ready

    @property
    def closes_at(self) -> float:
        """When it is closed if its client does nothing, in the loop's time; never, while it is at
        work or being closed. One whose body still comes has the time of one that idles."""
        if self._transport.is_closing():
            return math.inf
        if self._timer is not None:
            return self._timer.when()
        coming = self._ready[0] if self._ready else None
        if coming is None or not coming.awaited:
            return math.inf
        return coming.came + self._server.keep_alive

    def abort(self) -> None:
        """End it at once."""
        self._transport.abort()

    def close(self) -> None:
        """End it when what was written is sent."""
        if not self._transport.is_closing():
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._wait(WRITE_SECONDS)

    def _begin(self) -> None:
        """Answer what is ready; read no further than somebody keeps up with."""
        if self._parser.full:
            self._transport.pause_reading()
        if self._ready and self._task is None:
            work = None
            if len(self._ready) == 1 and self._drained is None:
                work = self._at_once(self._ready[0])
            if self._ready:
                self._server.at_work += 1
                self._task = self._loop.create_task(self._respond(work))
                self._task.add_done_callback(partial(self._ended, work))
        self._watch()

    def _at_once(self, request: Request) -> Work | None:
        """Answer the only request in this loop iteration, or return what answers it."""
        answer = self._answer(request)
        if isinstance(answer, Coroutine):
            return answer
        self._wait(None)  # each answer restarts the timer
        if not self._send(answer):
            self._finish()
        elif self._parser.full:
            self._go_on()
        return None

    def _answer(self, request: Request) -> Answer | Work:
        try:
            return self._server.respond(request)
        except Exception:
            logger.exception("bug")
            request.keeps_alive = False
            return Failure()

    def _ended(self, work: Work | None, _: object) -> None:
        self._server.at_work -= 1
        if work is not None:
            work.close()  # the task may have been cancelled before it began

    async def _respond(self, work: Work | None) -> None:
        while self._ready:
            request = self._ready[0]
            answer = work or self._answer(request)
            work = None
            if isinstance(answer, Coroutine):
                try:
                    answer = await answer
                except Exception:
                    logger.exception("bug")
                    answer = Failure()
                    request.keeps_alive = False
            if not self._send(answer):
                self._finish()
                return
            if self._drained is not None:
                self._watch()
                await self._drained
            if self._parser.full:
                self._go_on()
            if self._ready:
                await asyncio.sleep(0)  # it is the others' turn
        self._task = None
        self._watch()

    def _send(self, answer: Answer) -> bool:
        """Write the answer of the first request; whether the connection goes on."""
        request = self._ready.popleft()
        keeps = request.complete or request.drop()
        keeps = keeps and request.keeps_alive and not (self.goes or self._server.stops)
        self._transport.write(encoded(answer, request, keeps=keeps))
        self.answered += 1
        if not self.active:
            self.active = True
            self._server.acts(1)
        return keeps

    def _finish(self) -> None:
        """The last answer was written. A close would reset a client that still sends, before it has
        read that: what it sends is taken for a while, and forgotten."""
        parser, self._task = self._parser, None
        unread = not parser.between or parser.full or parser.over or len(self._ready) > 0
        self._ready.clear()
        parser.stop()
        if not unread or self._half_closed:
            self.close()
            return
        with contextlib.suppress(OSError):  # it has gone
            self._transport.write_eof()
        self._transport.resume_reading()
        self._watch()

    def _wanted(self, request: Request) -> None:
        """Somebody waits for the next part of a body."""
        if request.expects:
            del request.headers["expect"]
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._parser.full:
            self._go_on()

    def _go_on(self) -> None:
        """Some of what came was read or answered."""
        self._parser.go_on()
        if not self._parser.full:
            self._transport.resume_reading()

    def _watch(self) -> None:
        """Bound what is waited for; the clock goes on while that is the same."""
        if self._task is not None:
            seconds = None if self._drained is None else WRITE_SECONDS
        elif self._parser.between and not self._parser.over:
            seconds = self._server.keep_alive
        elif self._transport.get_write_buffer_size():
            seconds = WRITE_SECONDS
        else:
            seconds = PATIENCE
        if seconds != self._seconds:
            self._wait(seconds)

    def _wait(self, seconds: float | None) -> None:
        """Give the client so many seconds, unless something else is told before."""
        if self._timer is not None:
            self._timer.cancel()
        self._seconds = seconds
        later = self._loop.call_later
        self._timer = None if seconds is None else later(seconds, self._transport.abort)
