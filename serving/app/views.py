"""The table of routes as Flask's views: a thin adapter.

Knows Flask and the table; the handlers are framework-free.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from flask import Blueprint, Response, g, request

from serving.api.exchange import Answer
from serving.api.routes import Route
from serving.app import wsgi_body
from serving.app.hooks import response
from serving.app.service import Service
from serving.errors import BodyTooSlow

READERS = 1024  # threads for slow bodies: at most as many as a WSGI server has


def blueprint(service: Service) -> Blueprint:
    """Return a view for each route of the service."""
    views = Blueprint("api", __name__)
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="body")
    for route in service.routes:
        endpoint = f"{route.method} {route.path}".replace(".", " ")
        views.add_url_rule(
            route.path, endpoint, _view(service, readers, route), methods=[route.method]
        )
    return views


def _view(service: Service, readers: ThreadPoolExecutor, route: Route) -> Callable[..., Response]:
    """Return a view that runs the handler in the event loop."""

    def view(**_: str) -> Response:
        unproxied = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001

        async def read(deadline: float) -> bytes:
            limit, loop = service.settings.max_body_bytes, asyncio.get_running_loop()
            try:
                async with asyncio.timeout_at(deadline):
                    return await loop.run_in_executor(readers, wsgi_body.whole, unproxied, limit)
            except TimeoutError:
                raise BodyTooSlow("The body did not arrive in time.") from None

        g.exchange.read = read
        exchange = g.exchange

        async def handle() -> Answer:
            answer = route.handle(exchange)
            return answer if isinstance(answer, Answer) else await answer

        return response(service.loop.run(handle()))

    return view
