"""Every error that a client can receive, each with its HTTP status and a stable code.

Knows nothing of Flask or of any library that may raise; those are translated where they are called.

ServingError
├── BadRequest           400  the body or a parameter is malformed
│   ├── InvalidImage     400  the bytes are not a readable image
│   └── MalformedId      400  not a prediction id, or a truncated one
├── ForgedId             403  the prediction id was changed, or signed with an unknown key
├── UnknownPath          404  no such route
├── UnknownModel         404  no model of that name
├── UnknownVersion       404  no such version of the model
├── MethodNotAllowed     405  the route exists, the method does not
├── ConflictingFeedback  409  the prediction already has another label
├── ExpiredId            410  the prediction is too old to be labelled
├── RequestTooLarge      413  more bytes, or more parts, than the limit
│   └── ImageTooLarge    413  more pixels than the limit
├── TargetTooLong        414  the request target is longer than the limit
├── UnsupportedMedia     415  the content type cannot carry an image
├── UnknownLabel         422  the model has no such label
├── HeaderTooLarge       431  the header has more bytes, or more fields, than the limit
├── DeviceMissing        503  the configured device is not available
├── Overloaded           503  the queue is full; try again later
│   ├── Draining         503  this replica is shutting down
│   └── OutOfMemory      503  not enough memory at the moment; try again later
├── FeedbackUnavailable  503  labels cannot be recorded at the moment; try again later
├── DeadlineExceeded     504  no answer before the request's deadline
│   └── BodyTooSlow      408  the body did not arrive before the deadline
├── Unimplemented        501  the method, or the transfer coding, is not known
└── InternalError        500  a bug in the service; the log names the cause

Two more stand apart and answer no request. ModelError: a published model breaks the contract; it
stops the start, or leaves the version out. SettingsError: a setting is unknown or malformed; it
stops the start.
"""

import re
from typing import ClassVar


class ServingError(Exception):
    """The root: an HTTP ``status``, a ``code``, and ``headers`` that the response adds."""

    status: ClassVar[int] = 500
    code: ClassVar[str]  # the class name in snake_case: what programs compare, not the message
    headers: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, status: int | None = None) -> None:
        cls.status = status or cls.status
        cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    @property
    def body(self) -> dict[str, dict[str, str]]:
        """The JSON body, of one shape for every error."""
        return {"error": {"code": self.code, "message": str(self)}}


class BadRequest(ServingError, status=400):
    """The body or a parameter is malformed."""


class InvalidImage(BadRequest):
    """The bytes are not a readable image."""


class MalformedId(BadRequest):
    """Not a prediction id, or a truncated one."""


class ForgedId(ServingError, status=403):
    """The prediction id was changed, or signed with an unknown key."""


class UnknownPath(ServingError, status=404):
    """No such route."""


class UnknownModel(ServingError, status=404):
    """No model of that name."""


class UnknownVersion(ServingError, status=404):
    """No such version of the model."""


class MethodNotAllowed(ServingError, status=405):
    """The route exists, the method does not."""


class ConflictingFeedback(ServingError, status=409):
    """The prediction already has another label."""


class ExpiredId(ServingError, status=410):
    """The prediction is too old to be labelled."""


class RequestTooLarge(ServingError, status=413):
    """More bytes, or more parts, than the limit."""


class ImageTooLarge(RequestTooLarge):
    """More pixels than the limit."""


class TargetTooLong(ServingError, status=414):
    """The request target is longer than the limit."""


class UnsupportedMedia(ServingError, status=415):
    """The content type cannot carry an image."""


class UnknownLabel(ServingError, status=422):
    """The model has no such label."""


class HeaderTooLarge(ServingError, status=431):
    """The header has more bytes, or more fields, than the limit."""


class DeviceMissing(ServingError, status=503):
    """The configured device is not available."""


class Overloaded(ServingError, status=503):
    """The queue is full; try again later."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}


class Draining(Overloaded):
    """This replica is shutting down."""


class OutOfMemory(Overloaded):
    """Not enough memory at the moment; try again later."""


class FeedbackUnavailable(ServingError, status=503):
    """Labels cannot be recorded at the moment; try again later."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": "5"}


class DeadlineExceeded(ServingError, status=504):
    """No answer before the request's deadline."""


class BodyTooSlow(DeadlineExceeded, status=408):
    """The body did not arrive before the deadline."""


class Unimplemented(ServingError, status=501):
    """The method, or the transfer coding, is not known."""


class InternalError(ServingError):
    """A bug in the service; the log names the cause."""


class SettingsError(ValueError):
    """A setting is unknown or malformed; the service must not start."""


class ModelError(Exception):
    """A published model, or the routing, is missing, unreadable or breaks the contract."""
