"""What stands before Flask: predictions, probes and the routes of other protocols are answered in
the event loop, all else is handed to Flask in a thread.

Knows HTTP requests and WSGI. A prediction costs too little to pay for a thread and a framework;
what it does is ``routes``'s and ``edge``'s, as under Flask, so no behaviour differs.
"""

import asyncio
import io
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any
from wsgiref.types import WSGIApplication

from werkzeug.test import run_wsgi_app

from serving.api.context import Answer, Call, encoded
from serving.api.routes import Finder, Route
from serving.app.exchange import Exchange
from serving.app.service import Service
from serving.errors import BodyTooSlow, Overloaded, RequestTooLarge, ServingError
from serving.server.http.message import Request

PER_THREAD = 16  # requests that may wait for each of Flask's threads
CLIENT_LEFT = 499  # as nginx counts those to whom nothing could be answered

Arriving = Callable[[], AbstractContextManager[Callable[[int], None]]]


class Front:
    """Answers every request of one worker."""

    def __init__(self, app: WSGIApplication, service: Service) -> None:
        self._app, self._service = app, service
        self._threads = ThreadPoolExecutor(service.settings.threads, thread_name_prefix="flask")
        self._handed = 0  # requests that Flask has
        self._most_handed = PER_THREAD * service.settings.threads
        self._routes = Finder(service.routes())
        self._most = service.settings.max_body_bytes
        self._arriving = service.predictor.admission.receiving

    async def respond(self, request: Request) -> Answer:
        """The answer."""
        path = request.path
        if found := self._routes.find(request.method, path):
            return await self._in_loop(request, path, *found)
        if request.error is not None:  # malformed
            return await self._refused(request, request.error)
        if request.method == "HEAD" and (found := self._routes.find("GET", path)):
            return await self._in_loop(request, path, *found)
        return await self._by_flask(request)

    def at_once(self, request: Request) -> Answer | None:
        """The answer to a probe, or the refusal of a request for which there is no place; None of
        any other.

        In a storm most are refused: the less that takes, the more is left for the others.
        """
        if request.method == "GET":
            return self._told(request)
        try:
            self._service.predictor.admission.check()
        except Overloaded as exc:
            path = request.path
            found = self._routes.find("POST", path) if request.method == "POST" else None
            if found is None or request.error is not None:
                return None
            exchange = self._exchange(request, path)
            answer = _failed(exchange, exc)
            exchange.ended()
            return _finished(exchange, found[0], answer)
        return None

    def _told(self, request: Request) -> Answer | None:
        """An answer that waits for nothing."""
        path = request.path
        found = self._routes.find("GET", path)
        if found is None or found[0].waits or request.error is not None:
            return None
        try:
            self._in_loop(request, path, *found).send(None)
        except StopIteration as ended:
            answer: Answer = ended.value
            return answer
        raise RuntimeError(f"{found[0].path} waits")

    async def _refused(self, request: Request, error: ServingError) -> Answer:
        async def respond(_: Call) -> Answer:
            raise error

        return await self._in_loop(request, request.path, Route("", "unknown", respond), {})

    async def _in_loop(
        self, request: Request, path: str, route: Route, names: dict[str, str]
    ) -> Answer:
        async def read(deadline: float) -> bytes:
            return await whole(request, self._most, deadline, self._arriving)

        header = request.headers.get
        exchange = self._exchange(request, path)
        call = Call(names, request.query, header, read, exchange.used, exchange.id, exchange.began)
        try:
            answer = await route.respond(call)
        except asyncio.CancelledError:
            exchange.answered(route=route.path, status=CLIENT_LEFT)
            raise
        except Exception as exc:  # noqa: BLE001 - the one error handler
            answer = _failed(exchange, exc)
        finally:
            exchange.ended()
        return _finished(exchange, route, answer)

    def _exchange(self, request: Request, path: str) -> Exchange:
        sent = request.headers.get("x-request-id")
        return Exchange(self._service.metrics, method=request.method, path=path, request_id=sent)

    async def _by_flask(self, request: Request) -> Answer:
        """Flask's answer; no route of Flask's alone takes a body."""
        if self._handed >= self._most_handed:
            busy = f"All {self._most_handed} places for descriptions are taken. Try again later."
            return await self._refused(request, Overloaded(busy))
        self._handed += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._flask, request)
        finally:
            self._handed -= 1

    def _flask(self, request: Request) -> Answer:
        chunks, status, headers = run_wsgi_app(self._app, _environ(request), buffered=True)
        kind = headers.pop("Content-Type", "text/plain")
        return Answer(int(status[:3]), b"".join(chunks), str(kind), dict(headers))


def _failed(exchange: Exchange, exc: Exception) -> Answer:
    error = exchange.failed(exc)
    return Answer(error.status, encoded(exchange.told(error)), headers=error.headers)


def _finished(exchange: Exchange, route: Route, answer: Answer) -> Answer:
    exchange.answered(route=route.path, status=answer.status)
    headers = {"X-Request-ID": exchange.id, **answer.headers}
    return Answer(answer.status, answer.body, answer.content_type, headers)


async def whole(request: Request, limit: int, deadline: float, arriving: Arriving) -> bytes:
    """The body of a request; ``arriving`` is told what comes of it.

    Raises:
        BadRequest: it is malformed, or cut short.
        BodyTooSlow: it did not come by ``deadline``, a ``time.monotonic()``.
        Overloaded: too many bytes come to this worker at once.
        RequestTooLarge: it has more than ``limit`` bytes.
    """
    if (request.length or 0) > limit:
        raise RequestTooLarge(f"The body has {request.length} bytes. Expected at most {limit}.")
    if request.complete and request.buffered <= limit:
        return await request.chunk()
    parts, size = [], 0
    try:
        with arriving() as came:
            async with asyncio.timeout_at(deadline):
                while part := await request.chunk():
                    parts.append(part)
                    size += len(part)
                    if size > limit:
                        raise RequestTooLarge(f"The body has more than {limit} bytes.")
                    came(len(part))
    except TimeoutError:
        raise BodyTooSlow("The body did not come in time.") from None
    return b"".join(parts)


def _environ(request: Request) -> dict[str, Any]:
    """The request as WSGI tells it, without a body."""
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
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, text in request.headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = text
    return environ
