"""Dispatch a worker's requests: predictions, probes and other protocols run in the event loop, all
else runs on Flask in a thread.

Knows HTTP requests and WSGI. A prediction costs too little to pay for a thread and a framework; its
handlers are those of ``serving.api``, as under Flask, so the behaviour is the same.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any
from wsgiref.types import WSGIApplication

from werkzeug.test import run_wsgi_app

from serving.api.context import Answer, Call, encoded
from serving.api.routes import Finder, Route
from serving.app.exchange import Exchange
from serving.app.service import Service
from serving.errors import BodyTooSlow, InternalError, Overloaded, RequestTooLarge, ServingError
from serving.server.http.message import Request
from serving.server.http.pool import Pool

QUEUED_PER_THREAD = 16  # requests that may wait for each of Flask's threads
CLIENT_CLOSED = 499  # nginx's status for a client that closed before its answer

Arriving = Callable[[], AbstractContextManager[Callable[[int], None]]]


class Dispatcher:
    """Answers every request of one worker."""

    def __init__(self, app: WSGIApplication, service: Service) -> None:
        self._app, self._service = app, service
        self._threads = ThreadPoolExecutor(service.settings.threads, thread_name_prefix="flask")
        self._queued = 0  # requests given to Flask and not answered
        self._most_queued = QUEUED_PER_THREAD * service.settings.threads
        self._routes = Finder(service.routes())
        self._most_bytes = service.settings.max_body_bytes
        self._admission = service.predictor.admission

    def pool(self, *, keep_alive: float) -> Pool:
        """Return a pool of connections that this dispatcher answers."""
        bug = InternalError("A bug on our side. The log names the cause.")
        return Pool(
            self.respond,
            failure=Answer(bug.status, encoded(bug.body)),
            keep_alive=keep_alive,
            respond_now=self.respond_now,
        )

    async def respond(self, request: Request) -> Answer:
        """Return the answer."""
        path, method = request.path, request.method
        found = self._routes.find(method, path)
        if found is None and method == "HEAD":
            found = self._routes.find("GET", path)
        if found is not None:
            return await self._run(request, path, *found)
        if request.error is not None:
            return self._refuse(request, path, "unknown", request.error)
        return await self._run_flask(request, path)

    def respond_now(self, request: Request) -> Answer | None:
        """Answer synchronously what needs no waiting: a probe, or a request beyond the bound of
        admission control. Return None for all other requests.

        In an overload most requests are refused: the cheaper that is, the more is left for others.
        """
        overloaded = None
        if request.method != "GET":
            try:
                self._admission.check()
            except Overloaded as exc:
                overloaded = exc
            else:
                return None
        path = request.path
        found = self._routes.find(request.method, path)
        if found is None or request.error is not None:
            return None
        if overloaded:
            return self._refuse(request, path, found[0].path, overloaded)
        return None if found[0].waits else _completed(self._run(request, path, *found))

    async def _run(
        self, request: Request, path: str, route: Route, names: dict[str, str]
    ) -> Answer:
        """Run a handler in the event loop; every exception becomes an answer."""

        async def read(deadline: float) -> bytes:
            return await whole(request, self._most_bytes, deadline, self._admission.arriving)

        header = request.headers.get
        exchange = self._exchange(request, path)
        call = Call(names, request.query, header, read, exchange.used, exchange.id, exchange.began)
        try:
            answer = await route.respond(call)
        except asyncio.CancelledError:
            exchange.answered(route=route.path, status=CLIENT_CLOSED)
            raise
        except Exception as exc:  # noqa: BLE001 - the one error handler
            answer = _failed(exchange, exc)
        finally:
            exchange.ended()
        return _finished(exchange, route.path, answer)

    def _refuse(self, request: Request, path: str, route: str, error: ServingError) -> Answer:
        exchange = self._exchange(request, path)
        answer = _failed(exchange, error)
        exchange.ended()
        return _finished(exchange, route, answer)

    def _exchange(self, request: Request, path: str) -> Exchange:
        sent = request.headers.get("x-request-id")
        return Exchange(self._service.metrics, method=request.method, path=path, request_id=sent)

    async def _run_flask(self, request: Request, path: str) -> Answer:
        """Return Flask's answer; no route that only Flask has reads a body."""
        if self._queued >= self._most_queued:
            busy = f"Already {self._queued} requests for descriptions wait. Try again later."
            return self._refuse(request, path, "unknown", Overloaded(busy))
        self._queued += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._flask, request)
        finally:
            self._queued -= 1

    def _flask(self, request: Request) -> Answer:
        chunks, status, headers = run_wsgi_app(self._app, _environ(request), buffered=True)
        kind = headers.pop("Content-Type", "text/plain")
        return Answer(int(status[:3]), b"".join(chunks), str(kind), dict(headers))


def _completed(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Return the result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        answer: Answer = stopped.value
        return answer
    raise RuntimeError("A route with waits=False waits.")


def _failed(exchange: Exchange, exc: Exception) -> Answer:
    error = exchange.failed(exc)
    return Answer(error.status, encoded(exchange.told(error)), headers=error.headers)


def _finished(exchange: Exchange, route: str, answer: Answer) -> Answer:
    exchange.answered(route=route, status=answer.status)
    headers = {"X-Request-ID": exchange.id, **answer.headers}
    return Answer(answer.status, answer.body, answer.content_type, headers)


async def whole(request: Request, limit: int, deadline: float, arriving: Arriving) -> bytes:
    """Return the body of a request; ``arriving`` is called with the size of each part.

    Raises:
        BadRequest: if it is malformed or cut short.
        BodyTooSlow: if it is not complete by ``deadline``, a ``time.monotonic()``.
        Overloaded: if too many bytes are arriving at this worker.
        RequestTooLarge: if it has more than ``limit`` bytes.
    """
    length = request.content_length or 0
    if length > limit:
        raise RequestTooLarge(f"The body has {length} bytes. Expected at most {limit}.")
    if request.complete and request.buffered <= limit:
        return await request.chunk()
    parts, size = [], 0
    try:
        with arriving() as received:
            async with asyncio.timeout_at(deadline):
                while part := await request.chunk():
                    parts.append(part)
                    size += len(part)
                    if size > limit:
                        raise RequestTooLarge(f"The body has more than {limit} bytes.")
                    received(len(part))
    except TimeoutError:
        raise BodyTooSlow("The body did not arrive in time.") from None
    return b"".join(parts)


def _environ(request: Request) -> dict[str, Any]:
    """Return the WSGI environment of a request, without its body."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.encode().decode("latin-1"),
        "QUERY_STRING": request.query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": f"HTTP/{request.version}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, text in request.headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = text
    return environ
