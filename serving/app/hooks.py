"""Flask's hooks: each request is an ``Exchange``, and each error an answer of the one shape.

Knows Flask and werkzeug's exceptions; what is counted and logged is decided by ``Exchange``.
"""

from flask import Flask, Response, g, request
from werkzeug import exceptions as http

from serving import errors
from serving.api.exchange import UNKNOWN, Answer, Exchange
from serving.app.wsgi_body import discard
from serving.monitoring.metrics import Metrics


def init_app(app: Flask, metrics: Metrics) -> None:
    """Attach the hooks and the one error handler."""
    limit = 4 * int(app.config["MAX_CONTENT_LENGTH"])

    def begin() -> None:
        g.exchange = Exchange(
            metrics,
            method=request.method,
            path=request.path,
            query=request.query_string.decode("latin-1"),
            header=request.headers.get,
            route=request.url_rule.rule if request.url_rule else UNKNOWN,
            names=request.view_args or {},
        )

    def finish(made: Response) -> Response:
        made.headers["X-Request-ID"] = g.exchange.id
        g.exchange.finish(made.status_code)
        return made

    def handle(exc: Exception) -> Response:
        error = translated(exc, method=request.method, path=request.path)
        # Under overload threads are scarce and must answer the probes; after a deadline another
        # thread still reads the body; after an OSError the client is gone.
        skip = isinstance(error, errors.Overloaded | errors.DeadlineExceeded)
        skip = skip or isinstance(exc.__cause__, OSError)
        if "wsgi.input_terminated" in request.environ and not skip:
            discard(request.environ["wsgi.input"], limit)
        answer = g.exchange.fail(error)
        if isinstance(exc, http.MethodNotAllowed):
            answer.headers["Allow"] = ", ".join(sorted(exc.valid_methods or ()))
        return response(answer)

    app.before_request(begin)
    app.after_request(finish)
    app.register_error_handler(Exception, handle)


def response(answer: Answer) -> Response:
    """Return an answer as Flask's response."""
    return Response(answer.body, answer.status, answer.headers, content_type=answer.content_type)


def translated(exc: Exception, *, method: str, path: str) -> Exception:
    """Return werkzeug's exceptions as errors of our tree; any other exception as it is."""
    if isinstance(exc, http.NotFound):
        return errors.UnknownPath(f"No route {path!r}. GET /openapi.json lists all.")
    if isinstance(exc, http.MethodNotAllowed):
        known = ", ".join(sorted(exc.valid_methods or ()))
        return errors.MethodNotAllowed(f"{path} does not accept {method}. Expected {known}.")
    if isinstance(exc, http.RequestEntityTooLarge):
        return errors.RequestTooLarge("The request is too large.")
    if isinstance(exc, http.HTTPException) and 400 <= (exc.code or 500) < 500:
        return errors.BadRequest(f"The request is malformed: {exc.description}")
    return exc
