"""What every request meets, whatever its route: an id, a count, a line in the log, one error shape.

Knows the error tree and werkzeug's exceptions; knows nothing of images, of models or of a server.
"""

import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from werkzeug import exceptions as http

from serving import errors
from serving.inference.models.model import Model
from serving.monitoring import json_log
from serving.monitoring.metrics import Metrics

logger = logging.getLogger(__name__)

# Probes come every few seconds; their lines would bury the others.
QUIET = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
# Where an error is one sentence: TensorFlow Serving's API, and the Open Inference Protocol.
PROTOCOLS = ("/v1/", "/v2/")
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class Exchange:
    """One request, from its header to its line in the log."""

    def __init__(self, metrics: Metrics, *, method: str, path: str, request_id: str | None) -> None:
        """Count it; an id that is sane is kept."""
        self.began = time.monotonic()
        sane = _SANE_ID.fullmatch(request_id or "")
        self.id = sane[0] if sane else secrets.token_hex(16)
        self.model: tuple[str, int] | None = None
        self._metrics, self._method, self._path = metrics, method, path
        metrics.in_flight(1)

    def used(self, model: Model) -> None:
        """Note which model answers."""
        self.model = (model.name, model.version)

    def failed(self, exc: Exception) -> errors.ServingError:
        """Any exception as one of our tree, counted; a bug of ours is logged."""
        error = self._translated(exc)
        if isinstance(error, errors.InternalError):
            logger.error("bug", exc_info=exc, extra={"request_id": self.id})
        self._metrics.error(error.code)
        return error

    def told(self, error: errors.ServingError) -> Mapping[str, Any]:
        """The JSON of an error, as the protocol of the path has it."""
        return {"error": str(error)} if f"{self._path}/".startswith(PROTOCOLS) else error.body

    def answered(self, *, route: str, status: int) -> None:
        """Count the answer, and log it."""
        seconds = time.monotonic() - self.began
        self._metrics.request(route=route, method=self._method, status=status)
        if self.model is not None:
            self._metrics.stage(*self.model, stage="whole", seconds=seconds)
        self._log(status, seconds)

    def ended(self) -> None:
        """The request is over, answered or not."""
        self._metrics.in_flight(-1)

    def _translated(self, exc: Exception) -> errors.ServingError:
        if isinstance(exc, errors.ServingError):
            return exc
        if isinstance(exc, http.NotFound):
            return errors.UnknownPath(f"No route {self._path!r}. GET /openapi.json lists all.")
        if isinstance(exc, http.MethodNotAllowed):
            known = ", ".join(sorted(exc.valid_methods or ()))
            return errors.MethodNotAllowed(
                f"{self._path} does not take {self._method}. Expected {known}."
            )
        if isinstance(exc, http.RequestEntityTooLarge):
            return errors.RequestTooLarge("The request is too large.")
        if isinstance(exc, http.HTTPException) and 400 <= (exc.code or 500) < 500:
            return errors.BadRequest(f"The request is malformed: {exc.description}")
        return errors.InternalError(
            "A bug on our side. The log names the cause under the request id."
        )

    def _log(self, status: int, seconds: float) -> None:
        level = logging.DEBUG if self._path in QUIET and status < 400 else logging.INFO
        if not logger.isEnabledFor(level):
            return
        fields = {
            "request_id": self.id,
            "method": self._method,
            "path": self._path,
            "status": status,
            "ms": round(seconds * 1000, 2),
        }
        if self.model is not None:
            fields["model"], fields["version"] = self.model
        json_log.write(level, fields)
