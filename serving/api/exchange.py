"""One request and its answer, whatever server received it.

Knows the error tree, the metrics and the log line; knows no web framework, no socket and no model.
"""

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson

from serving.errors import BadRequest, InternalError, OutOfMemory, ServingError
from serving.monitoring import json_log
from serving.monitoring.metrics import Metrics

logger = logging.getLogger(__name__)

JSON = "application/json"
# Load balancers probe every few seconds: successful probes are logged at DEBUG.
QUIET = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
# TensorFlow Serving and the Open Inference Protocol define an error as one string.
PROTOCOLS = ("/v1/", "/v2/")
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

UNKNOWN = "unknown"  # the route of a request that no route accepts


@dataclass(slots=True)
class Answer:
    """The response to a request."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


class Exchange:
    """One request, from its header to its log line."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        method: str,
        path: str,
        query: str,
        header: Callable[[str], str | None],
        route: str = UNKNOWN,
        names: Mapping[str, str],
    ) -> None:
        """Count the request. ``header`` returns a field by its name in lower case; ``names`` are
        the variable parts of the path."""
        self.began = time.monotonic()
        self.method, self.path, self.query = method, path, query
        self.header, self.names = header, names
        # Set on routes that accept a body: returns it, or raises after a ``time.monotonic()``.
        self.read: Callable[[float], Awaitable[bytes]]
        self.model: tuple[str, int] | None = None  # the version that answers, once it is known
        sent = header("x-request-id")
        self.id = sent if sent and _SANE_ID.fullmatch(sent) else secrets.token_hex(16)
        self._metrics, self._route, self._error = metrics, route, ""
        metrics.begin()

    def fail(self, exc: Exception) -> Answer:
        """Count an exception and return its answer. An exception outside the tree is a bug: it is
        logged and answered as ``InternalError``. A shortage of memory is none."""
        error = exc
        if isinstance(exc, MemoryError):
            error = OutOfMemory("There is not enough memory at the moment. Try again later.")
        if not isinstance(error, ServingError):
            error = InternalError("Internal error. The log holds the cause under this request id.")
            logger.error("bug", exc_info=exc, extra={"request_id": self.id})
        self._error = error.code
        self._metrics.error(error.code)
        plain = f"{self.path}/".startswith(PROTOCOLS)
        body = {"error": str(error)} if plain else error.body
        return Answer(error.status, encoded(body), headers=dict(error.headers))

    def finish(self, status: int) -> None:
        """Count and log the answer."""
        seconds = time.monotonic() - self.began
        self._metrics.finish(
            route=self._route, method=self.method, status=status, model=self.model, seconds=seconds
        )
        level = logging.DEBUG if self.path in QUIET and status < 400 else logging.INFO
        if logger.isEnabledFor(level):
            fields: dict[str, object] = {
                "request_id": self.id,
                "method": self.method,
                "path": self.path,
                "status": status,
                "ms": round(seconds * 1000, 2),
            }
            if self._error:
                fields["error"] = self._error
            if self.model is not None:
                fields["model"], fields["version"] = self.model
            json_log.write(level, fields)


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return JSON with a final newline, for people at a terminal."""
    return orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)


def query_parameters(query: str, known: frozenset[str]) -> dict[str, str]:
    """Return the parameters of a query, or raise BadRequest: one is unknown or repeated."""
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    # An ignored typo in ?version= would answer with another version.
    if unknown := sorted(given.keys() - known):
        raise BadRequest(
            f"No parameter named {unknown[0]!r}. Known parameters: {', '.join(sorted(known))}."
        )
    if len(given) < len(pairs):
        raise BadRequest("A parameter is given more than once.")
    return given


def positive(what: str, text: str) -> int:
    """Return the positive integer in ``text``, or raise a BadRequest that names ``what``."""
    if not is_positive(text):
        raise BadRequest(f"{what} is {text[:40]!r}. Expected a positive integer.")
    return int(text)


def is_positive(text: str) -> bool:
    """Return True if ``text`` is an integer from 1 to 999,999,999."""
    return text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0
