"""What stands before Flask: predictions, probes and the routes of other protocols are answered in
the event loop, all else is handed to Flask in a thread.

Knows HTTP requests and WSGI. A prediction costs too little to pay for a thread and a framework;
what it does is ``routes``'s and ``edge``'s, as under Flask, so no behaviour differs.
"""

import asyncio
import io
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any
from wsgiref.types import WSGIApplication

from werkzeug.test import run_wsgi_app

from serving.api.exchange import Answer, Exchange, ReadBody, no_body
from serving.api.routes import Finder, Route
from serving.app.service import Service
from serving.errors import BodyTooSlow, Overloaded, RequestTooLarge, ServingError
from serving.inference.admission import Admission
from serving.server.http.message import Request

CLIENT_LEFT = 499  # as nginx counts those to whom nothing could be answered


class Front:
    """Answers every request of one worker."""

    def __init__(self, app: WSGIApplication, service: Service) -> None:
        self._app, self._metrics, self._pool = app, service.metrics, service.pool
        self._routes = Finder(service.routes)
        self._max_body = service.settings.max_body_bytes

    def respond(self, request: Request) -> Answer | Coroutine[Any, Any, Answer]:
        """Return the answer to a probe, or the refusal of a request that finds no place. For any
        other request, return a coroutine.

        Under overload most requests are refused: the less that costs, the more remains for others.
        """
        path = request.path
        found = self._routes.find(request.method, path)
        if found is None:
            if request.error is not None:
                return self._refuse(request, path, request.error)
            return self._by_flask(request, path)
        route, names = found
        if route.immediate:
            return self._immediate(request, path, route, names)
        if route.admission is not None:
            try:
                route.admission.check()
            except Overloaded as exc:
                return self._refuse(request, path, exc, route=route.path)
        return self._wait(request, path, route, names)

    def _exchange(
        self, request: Request, path: str, admission: Admission | None = None
    ) -> Exchange:
        read: ReadBody = no_body
        if admission is not None:
            read = partial(whole, request, self._max_body, admission)
        return Exchange(
            self._metrics,
            method=request.method,
            path=path,
            query=request.query,
            header=request.headers.get,
            read=read,
        )

    def _refuse(
        self, request: Request, path: str, error: ServingError, *, route: str = "unknown"
    ) -> Answer:
        exchange = self._exchange(request, path)
        return _finished(exchange, route, exchange.fail(error))

    def _immediate(
        self, request: Request, path: str, route: Route, names: dict[str, str]
    ) -> Answer:
        exchange = self._exchange(request, path)
        exchange.names = names
        try:
            answer = route.handle(exchange)
            assert isinstance(answer, Answer)  # noqa: S101 - the route is immediate
        except Exception as exc:  # noqa: BLE001 - the one error handler
            answer = exchange.fail(exc)
        return _finished(exchange, route.path, answer)

    async def _wait(
        self, request: Request, path: str, route: Route, names: dict[str, str]
    ) -> Answer:
        exchange = self._exchange(request, path, route.admission)
        exchange.names = names
        try:
            answer = route.handle(exchange)
            if not isinstance(answer, Answer):
                answer = await answer
        except asyncio.CancelledError:
            exchange.finish(route=route.path, status=CLIENT_LEFT)
            raise
        except Exception as exc:  # noqa: BLE001 - the one error handler
            answer = exchange.fail(exc)
        return _finished(exchange, route.path, answer)

    async def _by_flask(self, request: Request, path: str) -> Answer:
        """Run Flask in a thread; its own routes accept no body."""
        try:
            return await self._pool.run(partial(self._flask, request))
        except Overloaded as exc:
            return self._refuse(request, path, exc)

    def _flask(self, request: Request) -> Answer:
        chunks, status, headers = run_wsgi_app(self._app, _environ(request), buffered=True)
        kind = headers.pop("Content-Type", "text/plain")
        return Answer(int(status[:3]), b"".join(chunks), str(kind), dict(headers))


def _finished(exchange: Exchange, route: str, answer: Answer) -> Answer:
    answer.headers["X-Request-ID"] = exchange.id
    exchange.finish(route=route, status=answer.status)
    return answer


async def whole(request: Request, limit: int, admission: Admission, deadline: float) -> bytes:
    """Return the body of a request; ``admission`` counts its bytes while they arrive.

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
        with admission.arriving() as came:
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
