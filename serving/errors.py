"""Everything that can go wrong for a client, each with its HTTP status and a stable code.

Knows nothing of Flask or of any library that may raise; those are translated where they are called.

ServingError
├── BadRequest           400  the body or a parameter is malformed
│   ├── InvalidImage     400  the bytes are not a readable image
│   └── MalformedId      400  the id of a prediction is cut short, or none
├── ForgedId             403  the id of a prediction was changed, or signed by an unknown key
├── UnknownPath          404  no such route
├── UnknownModel         404  no model of that name
├── UnknownVersion       404  no such version of the model
├── MethodNotAllowed     405  the route exists, the method does not
├── ConflictingFeedback  409  the prediction has another label already
├── ExpiredId            410  the prediction is too old to be labelled
├── RequestTooLarge      413  more bytes, or more parts, than the limit
│   └── ImageTooLarge    413  more pixels than the limit
├── TargetTooLong        414  a target with more bytes than the limit
├── UnsupportedMedia     415  a content type that carries no image
├── UnknownLabel         422  the model has no such label
├── HeaderTooLarge       431  a header with more bytes, or more fields, than the limit
├── DeviceMissing        503  the device that was asked for is not there
├── Overloaded           503  the queue is full; try again later
│   └── Draining         503  this replica is about to stop
├── FeedbackUnavailable  503  labels cannot be recorded at the moment; try again later
├── DeadlineExceeded     504  no answer within the request's time
│   └── BodyTooSlow      408  the body did not come within it
└── InternalError        500  a bug of ours; the log holds the cause

Two stand apart and answer no request. ModelError: a published model breaks the contract; it stops
the start, or leaves the version out. SettingsError: a setting is unknown or malformed; no start.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import ClassVar


class ServingError(Exception):
    """The root: an HTTP ``status`` and, in ``headers``, what the answer carries beside its body."""

    status: ClassVar[int] = 500
    headers: ClassVar[dict[str, str]] = {}

    @property
    def code(self) -> str:
        """The class name in snake_case: what programs compare, unlike the message."""
        return _in_snake_case(type(self).__name__)

    @property
    def body(self) -> dict[str, dict[str, str]]:
        """The one shape of an error."""
        return {"error": {"code": self.code, "message": str(self)}}


@lru_cache
def _in_snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class BadRequest(ServingError):
    """The body or a parameter is malformed."""

    status = 400


class InvalidImage(BadRequest):
    """The bytes are not a readable image."""


class MalformedId(BadRequest):
    """The id of a prediction is cut short, or none."""


class ForgedId(ServingError):
    """The id of a prediction was changed, or signed by an unknown key."""

    status = 403


class UnknownPath(ServingError):
    """No such route."""

    status = 404


class UnknownModel(ServingError):
    """No model of that name."""

    status = 404


class UnknownVersion(ServingError):
    """No such version of the model."""

    status = 404


class MethodNotAllowed(ServingError):
    """The route exists, the method does not."""

    status = 405


class ConflictingFeedback(ServingError):
    """The prediction has another label already."""

    status = 409


class ExpiredId(ServingError):
    """The prediction is too old to be labelled."""

    status = 410


class RequestTooLarge(ServingError):
    """More bytes, or more parts, than the limit."""

    status = 413


class ImageTooLarge(RequestTooLarge):
    """More pixels than the limit."""


class TargetTooLong(ServingError):
    """A target with more bytes than the limit."""

    status = 414


class UnsupportedMedia(ServingError):
    """A content type that carries no image."""

    status = 415


class UnknownLabel(ServingError):
    """The model has no such label."""

    status = 422


class HeaderTooLarge(ServingError):
    """A header with more bytes, or more fields, than the limit."""

    status = 431


class DeviceMissing(ServingError):
    """The device that was asked for is not there."""

    status = 503


class Overloaded(ServingError):
    """The queue is full; try again later."""

    status = 503
    headers: ClassVar[dict[str, str]] = {"Retry-After": "1"}


class Draining(Overloaded):
    """This replica is about to stop."""


class FeedbackUnavailable(ServingError):
    """Labels cannot be recorded at the moment; try again later."""

    status = 503
    headers: ClassVar[dict[str, str]] = {"Retry-After": "5"}


class DeadlineExceeded(ServingError):
    """No answer within the request's time."""

    status = 504


class BodyTooSlow(DeadlineExceeded):
    """The body did not come within the request's time."""

    status = 408


class InternalError(ServingError):
    """A bug of ours; the log holds the cause."""


class SettingsError(ValueError):
    """A setting is unknown or its value is not what it should be; the service must not start."""


class ModelError(Exception):
    """A published model, or the routing, is missing, unreadable or breaks the contract."""


def tree(root: type[ServingError] = ServingError) -> Iterator[type[ServingError]]:
    """Every error below ``root``, in the order it is drawn."""
    for child in root.__subclasses__():
        yield child
        yield from tree(child)


def table() -> str:
    """The errors as a Markdown table: the one of the README."""
    rows = ["| Status | Code | Meaning |", "| --- | --- | --- |"]
    rows += [
        f"| {error.status} | `{error().code}` | {error.__doc__} |"
        for error in sorted(tree(), key=lambda error: error.status)
    ]
    return "\n".join(rows)
