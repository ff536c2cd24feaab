"""One HTTP/1.1 connection in an event loop: its requests, each answered in its turn.

Knows asyncio; knows nothing of parsing or of routes. A time limit bounds everything that a client
may hold: half a header, an unread body, answers that it does not read, an idle connection.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Coroutine
from functools import partial
from typing import Any

from serving.server.http.message import Answer, Request, encoded
from serving.server.http.parser import Parser
from serving.server.http.pool import Pool

logger = logging.getLogger(__name__)

Work = Coroutine[Any, Any, Answer]

READ_SECONDS = 5.0  # for a whole header, or for a lingering close, however slowly bytes drip
WRITE_SECONDS = 30.0  # for the client to receive what was written


class Connection(asyncio.Protocol):
    """One client's connection."""

    # for the pool, which resets them once a second
    active = True
    answered = answered_before = 0
    close_after_answer = False

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool, self._loop = pool, loop
        self._parser = Parser(self._body_awaited)
        self._ready = self._parser.ready
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._timeout: float | None = None  # seconds, of the timer
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None  # while the write buffer is full
        self._half_closed = False  # by the client
        self._finished = False  # closed, or lingering

    # callbacks of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer for the first header."""
        self._transport = transport  # type: ignore[assignment]
        self._pool.add(self)
        self._set_timer(READ_SECONDS)

    def connection_lost(self, _: Exception | None) -> None:
        """Cancel the request in progress."""
        self._set_timer(None)
        self._pool.remove(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse the data and start answering."""
        if not self._parser.stopped:
            self._parser.feed(data)
            self._start()

    def eof_received(self) -> bool:
        """Handle a half-close: answer what was requested, then close."""
        self._half_closed = True
        self._parser.feed_eof()
        return bool(self._ready)

    def pause_writing(self) -> None:
        """Stop answering: the write buffer is above its high-water mark."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """Continue answering: the write buffer is below its low-water mark."""
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None
            self._update_timer()

    # for the pool

    @property
    def idle(self) -> bool:
        """Return True if no request waits for its answer."""
        return not self._ready

    @property
    def closes_at(self) -> float:
        """When it times out, in the loop's time; infinite while the server is working. A connection
        whose body is still arriving counts like an idle one."""
        if self._transport.is_closing():
            return math.inf
        if self._timer is not None:
            return self._timer.when()
        if self._ready and self._ready[0].reader_waits:
            return self._ready[0].received_at + self._pool.keep_alive
        return math.inf

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def close(self) -> None:
        """Close when everything written is sent."""
        if not self._transport.is_closing():
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._set_timer(WRITE_SECONDS)

    # requests and their answers

    def _start(self) -> None:
        """Answer what is ready; stop reading while the parser is full."""
        if self._parser.full:
            self._transport.pause_reading()
        if self._ready and self._task is None:
            work = None
            if len(self._ready) == 1 and self._drained is None:
                work = self._respond_now(self._ready[0])
            if self._ready:
                self._pool.in_progress += 1
                self._task = self._loop.create_task(self._respond(work))
                self._task.add_done_callback(partial(self._task_done, work))
        self._wait()

    def _respond_now(self, request: Request) -> Work | None:
        """Answer the only request without creating a task, or return the coroutine that does."""
        answer = self._call(request)
        if isinstance(answer, Coroutine):
            return answer
        self._set_timer(None)  # each answer restarts the clock
        if not self._send(answer):
            self._finish()
        elif self._parser.full:
            self._resume_parsing()
        return None

    def _call(self, request: Request) -> Answer | Work:
        try:
            return self._pool.respond(request)
        except Exception:
            logger.exception("bug")
            return self._failure(request)

    def _failure(self, request: Request) -> Answer:
        request.keep_alive = False
        return self._pool.failure

    def _task_done(self, work: Work | None, _: object) -> None:
        self._pool.in_progress -= 1
        if work is not None:
            work.close()  # a task that was cancelled before it began has not run it

    async def _respond(self, work: Work | None) -> None:
        while self._ready:
            request = self._ready[0]
            answer, work = work or self._call(request), None
            if isinstance(answer, Coroutine):
                try:
                    answer = await answer
                except Exception:
                    logger.exception("bug")
                    answer = self._failure(request)
            if not self._send(answer):
                self._finish()
                return
            if self._drained is not None:
                self._update_timer()
                await self._drained
            if self._parser.full:
                self._resume_parsing()
            if self._ready:
                await asyncio.sleep(0)  # let other connections run
        self._task = None
        self._wait()

    def _send(self, answer: Answer) -> bool:
        """Write the answer to the first request. Return True if the connection stays open."""
        request = self._ready.popleft()
        keep_alive = request.complete or request.discard()
        keep_alive = keep_alive and request.keep_alive
        keep_alive = keep_alive and not (self.close_after_answer or self._pool.stopping)
        self._transport.write(encoded(answer, request, keep_alive=keep_alive))
        self.answered += 1
        if not self.active:
            self.active = True
            self._pool.activate(1)
        return keep_alive

    def _finish(self) -> None:
        """Close after the last answer. If the client may still be sending, linger: half-close, then
        discard input, so that a reset cannot destroy the answer (RFC 9112, 9.6)."""
        parser, self._task, self._finished = self._parser, None, True
        unread = not parser.at_boundary or parser.full or parser.stopped or bool(self._ready)
        self._ready.clear()
        parser.stop()
        if not unread or self._half_closed:
            self.close()
            return
        with contextlib.suppress(OSError):  # the client has closed
            self._transport.write_eof()
        self._transport.resume_reading()
        self._update_timer()

    def _body_awaited(self, request: Request) -> None:
        """Let the client send more of a body."""
        if request.expects_continue:
            del request.headers["expect"]
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._parser.full:
            self._resume_parsing()

    def _resume_parsing(self) -> None:
        self._parser.resume()
        if not self._parser.full:
            self._transport.resume_reading()

    def _wait(self) -> None:
        """Wait for the client. If what follows a request that was answered early cannot be parsed,
        no answer will end the connection: end it now."""
        if self._parser.ended and self.idle and self._task is None and not self._finished:
            self._finish()
        self._update_timer()

    def _update_timer(self) -> None:
        """Set the time limit of the present state; the clock keeps running if it is the same."""
        if self._task is not None:
            seconds = None if self._drained is None else WRITE_SECONDS
        elif self._parser.at_boundary and not self._parser.stopped:
            seconds = self._pool.keep_alive
        elif self._transport.get_write_buffer_size():
            seconds = WRITE_SECONDS
        else:
            seconds = READ_SECONDS
        if seconds != self._timeout:
            self._set_timer(seconds)

    def _set_timer(self, seconds: float | None) -> None:
        """Close the connection after so many seconds, unless the timer is set again."""
        if self._timer is not None:
            self._timer.cancel()
        self._timeout = seconds
        later = self._loop.call_later
        self._timer = None if seconds is None else later(seconds, self._transport.abort)
