"""Dispatch the requests of a worker: the engine's adapter to the table of routes.

Knows HTTP requests and WSGI. A prediction costs too little to pay for a thread and a framework, so
handlers run in the event loop; what the table does not know runs on Flask in a thread.
"""

import asyncio
import re
import sys
from collections.abc import Coroutine, Iterable
from functools import partial
from io import BytesIO
from typing import Any
from wsgiref.types import WSGIApplication

from werkzeug.test import run_wsgi_app

from serving.api.exchange import UNKNOWN, Answer, Exchange, encoded
from serving.api.routes import Route
from serving.app.service import Service
from serving.errors import InternalError, Overloaded, ServingError
from serving.server.http.message import Request
from serving.server.http.pool import Pool

CLIENT_CLOSED = 499  # nginx's status for a client that closed before its answer


class Finder:
    """The table, indexed by method and path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._named: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        methods = {"HEAD", "OPTIONS"}
        for route in routes:
            methods.add(route.method)
            if "<" not in route.path:
                self._exact[route.method, route.path] = route
                continue
            key = route.method, _first(route.path)
            pattern = re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", route.path)
            self._named.setdefault(key, []).append((re.compile(pattern), route))
        self.methods = sorted(methods)  # of any route

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route and the variable parts of the path; None for an unknown path or method.
        HEAD has the route of GET."""
        if method == "HEAD":
            method = "GET"
        if (exact := self._exact.get((method, path))) is not None:
            return exact, {}
        for pattern, route in self._named.get((method, _first(path)), ()):
            if found := pattern.fullmatch(path):
                return route, found.groupdict()
        return None


def _first(path: str) -> str:
    return path[: path.find("/", 1)]


class Dispatcher:
    """Answers every request of one worker."""

    def __init__(self, app: WSGIApplication, service: Service) -> None:
        self._app, self._metrics, self._threads = app, service.metrics, service.pool
        self._routes = Finder(service.routes)
        self._max_body = service.settings.max_body_bytes

    def pool(self, *, keep_alive: float) -> Pool:
        """Return a pool of connections that this dispatcher answers."""
        bug = InternalError("Internal error. The log holds the cause.")
        failure = Answer(bug.status, encoded(bug.body))
        return Pool(self.respond, failure=failure, keep_alive=keep_alive)

    def respond(self, request: Request) -> Answer | Coroutine[Any, Any, Answer]:
        """Return the answer to a probe, or the refusal of a request that finds no place. For any
        other request, return a coroutine.

        Under overload most requests are refused: the less that costs, the more remains for others.
        """
        found = self._routes.find(request.method, request.path)
        if found is None:
            if request.error is not None:
                return self._refuse(request, request.error)
            if request.target == b"*":
                return self._options(request)
            return self._run_flask(request)
        route, names = found
        if route.immediate:
            return self._run_now(request, route, names)
        if route.admission is not None:
            try:
                route.admission.check()
            except Overloaded as exc:
                return self._refuse(request, exc, route=route.path)
        return self._run(request, route, names)

    def _exchange(
        self, request: Request, route: str = UNKNOWN, names: dict[str, str] | None = None
    ) -> Exchange:
        return Exchange(
            self._metrics,
            method=request.method,
            path=request.path,
            query=request.query,
            header=request.headers.get,
            route=route,
            names=names or {},
        )

    def _refuse(self, request: Request, error: ServingError, *, route: str = UNKNOWN) -> Answer:
        exchange = self._exchange(request, route)
        return _finished(exchange, exchange.fail(error))

    def _options(self, request: Request) -> Answer:
        """Answer ``OPTIONS *``, which asks about the whole server (RFC 9110, 9.3.7)."""
        allow = {"Allow": ", ".join(self._routes.methods)}
        return _finished(self._exchange(request), Answer(200, b"", "text/plain", allow))

    def _run_now(self, request: Request, route: Route, names: dict[str, str]) -> Answer:
        exchange = self._exchange(request, route.path, names)
        try:
            answer = route.handle(exchange)
            assert isinstance(answer, Answer)  # noqa: S101 - the route is immediate
        except Exception as exc:  # noqa: BLE001 - the one error handler
            answer = exchange.fail(exc)
        return _finished(exchange, answer)

    async def _run(self, request: Request, route: Route, names: dict[str, str]) -> Answer:
        exchange = self._exchange(request, route.path, names)
        if route.admission is not None:
            exchange.read = partial(request.read, self._max_body, route.admission.receiving)
        try:
            answer = route.handle(exchange)
            if not isinstance(answer, Answer):
                answer = await answer
        except asyncio.CancelledError:
            exchange.finish(CLIENT_CLOSED)
            raise
        except Exception as exc:  # noqa: BLE001 - the one error handler
            answer = exchange.fail(exc)
        return _finished(exchange, answer)

    async def _run_flask(self, request: Request) -> Answer:
        """Run Flask in a thread; its own routes accept no body."""
        try:
            return await self._threads.run(partial(self._flask, request))
        except Overloaded as exc:
            return self._refuse(request, exc)

    def _flask(self, request: Request) -> Answer:
        chunks, status, headers = run_wsgi_app(self._app, _environ(request), buffered=True)
        kind = headers.pop("Content-Type", "text/plain")
        return Answer(int(status[:3]), b"".join(chunks), str(kind), dict(headers))


def _finished(exchange: Exchange, answer: Answer) -> Answer:
    answer.headers["X-Request-ID"] = exchange.id
    exchange.finish(answer.status)
    return answer


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
