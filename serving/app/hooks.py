"""Flask's hooks: each request is an ``Exchange``, each error an answer of its one shape.

Knows Flask; what it does with a request is ``edge``'s.
"""

from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, g, request
from werkzeug import exceptions as http

from serving import errors
from serving.api.context import encoded
from serving.app.exchange import Exchange
from serving.app.wsgi_body import discard
from serving.monitoring.metrics import Metrics


def init_app(app: Flask, metrics: Metrics) -> None:
    """Attach the hooks and the one error handler."""
    limit = 4 * int(app.config["MAX_CONTENT_LENGTH"])

    def begin() -> None:
        sent = request.headers.get("X-Request-ID")
        g.exchange = Exchange(metrics, method=request.method, path=request.path, request_id=sent)

    def answered(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.exchange.id
        route = request.url_rule.rule if request.url_rule else "unknown"
        g.exchange.answered(route=route, status=response.status_code)
        return response

    def finish(_: BaseException | None) -> None:
        g.exchange.ended()

    def handle(exc: Exception) -> Response:
        error = g.exchange.failed(exc)
        # Not while places are short, as the threads that are left answer the probes; nor for one
        # who is late, as another thread still reads.
        late = isinstance(error, errors.Overloaded | errors.DeadlineExceeded)
        hurried = late or isinstance(exc.__cause__, OSError)
        if "wsgi.input_terminated" in request.environ and not hurried:
            discard(request.environ["wsgi.input"], limit)
        response = json_response(g.exchange.told(error), status=error.status)
        response.headers.update(error.headers)
        if isinstance(exc, http.MethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(exc.valid_methods or ()))
        return response

    app.before_request(begin)
    app.after_request(answered)
    app.teardown_request(finish)
    app.register_error_handler(Exception, handle)


def json_response(body: Mapping[str, Any], *, status: int = 200) -> Response:
    """An answer of ours."""
    return Response(encoded(body), status=status, mimetype="application/json")
