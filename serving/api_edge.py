"""What every request meets, whatever its route: an id, a count, a line in the log, one error shape.

Knows Flask and the error tree; knows nothing of images or of models.
"""

import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, g, request
from werkzeug import exceptions as http

from serving import errors
from serving.metrics import Metrics
from serving.uploads import discard

logger = logging.getLogger(__name__)

# Probes come every few seconds; their lines would bury the others.
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def init_app(app: Flask, metrics: Metrics) -> None:
    """Attach the hooks and the one error handler."""
    limit = 4 * int(app.config["MAX_CONTENT_LENGTH"])

    def begin() -> None:
        g.began = time.monotonic()
        g.model = None
        sent = request.headers.get("X-Request-ID", "")
        g.request_id = sent if _SANE_ID.fullmatch(sent) else uuid.uuid4().hex
        metrics.in_flight(1)

    def answered(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        route = request.url_rule.rule if request.url_rule else "unknown"
        metrics.request(route=route, method=request.method, status=response.status_code)
        seconds = time.monotonic() - g.began
        if g.model is not None:
            metrics.stage(*g.model, stage="whole", seconds=seconds)
        _log(response.status_code, seconds)
        return response

    def finish(_: BaseException | None) -> None:
        metrics.in_flight(-1)

    def handle(exc: Exception) -> Response:
        error = translate(exc)
        if isinstance(error, errors.InternalError):
            logger.error("bug", exc_info=exc, extra={"request_id": g.request_id})
        # Not while places are short: the threads that are left answer the probes.
        hurried = isinstance(error, errors.Overloaded) or isinstance(exc.__cause__, OSError)
        if "wsgi.input_terminated" in request.environ and not hurried:
            discard(request.environ["wsgi.input"], limit)
        response = json_response(error_body(error, metrics), status=error.status)
        response.headers.update(error.headers)
        if isinstance(exc, http.MethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(exc.valid_methods or ()))
        return response

    app.before_request(begin)
    app.after_request(answered)
    app.teardown_request(finish)
    app.register_error_handler(Exception, handle)


def json_response(body: Mapping[str, Any], *, status: int = 200) -> Response:
    """An answer of ours, with a line end for people at a terminal."""
    return Response(json.dumps(body) + "\n", status=status, mimetype="application/json")


def error_body(error: errors.ServingError, metrics: Metrics) -> dict[str, dict[str, str]]:
    """The one shape of an error, counted as it is made."""
    metrics.error(error.code)
    return {"error": {"code": error.code, "message": str(error)}}


def translate(exc: Exception) -> errors.ServingError:
    """Any exception as one of our tree; what is not the client's doing is an ``InternalError``."""
    if isinstance(exc, errors.ServingError):
        return exc
    if isinstance(exc, http.NotFound):
        return errors.UnknownPath(f"No route {request.path!r}. GET /openapi.json lists all.")
    if isinstance(exc, http.MethodNotAllowed):
        known = ", ".join(sorted(exc.valid_methods or ()))
        return errors.MethodNotAllowed(
            f"{request.path} does not take {request.method}. Expected {known}."
        )
    if isinstance(exc, http.RequestEntityTooLarge):
        return errors.RequestTooLarge("The request is too large.")
    if isinstance(exc, http.HTTPException) and 400 <= (exc.code or 500) < 500:
        return errors.BadRequest(f"The request is malformed: {exc.description}")
    return errors.InternalError("A bug on our side. The log names the cause under the request id.")


def _log(status: int, seconds: float) -> None:
    level = logging.DEBUG if request.path in QUIET and status < 400 else logging.INFO
    if not logger.isEnabledFor(level):
        return
    fields = {
        "request_id": g.request_id,
        "method": request.method,
        "path": request.path,
        "status": status,
        "ms": round(seconds * 1000, 2),
    }
    if g.model is not None:
        fields["model"], fields["version"] = g.model
    logger.log(level, "request", extra=fields)
