"""Take the images out of a request's body: the file itself, a form, or base64 in JSON.

Knows werkzeug's requests and the limits on bytes and parts; knows nothing of Flask, of pixels or of
models. An upload that cannot be had, as from malformed base64, is an error in its place.
"""

import base64
import io
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.wrappers import Request

from serving.errors import (
    BadRequest,
    InvalidImage,
    RequestTooLarge,
    ServingError,
    UnsupportedMedia,
)

Upload = bytes | ServingError

# A form may carry a few fields beside its images; they are short.
EXTRA_PARTS = 8
FIELD_BYTES = 256 * 1024  # werkzeug bounds by it what it reads at once, 64 KiB, with what is left
DISCARD_STEP = 256 * 1024
# A JSON body has a comma between two images, one in each data URL, and hardly any other.
EXTRA_COMMAS = 8

_DATA_URL = re.compile(r"\Adata:[^,]*,")


@dataclass(frozen=True)
class Limits:
    """The bounds of one request."""

    body_bytes: int
    images: int


@dataclass(frozen=True)
class Body:
    """What a request carried: its images, and the model if a form field named one."""

    uploads: Sequence[Upload]
    model: str | None = None


def read(request: Request, limits: Limits) -> Body:
    """The images of a request, in their order.

    Raises:
        BadRequest: the body is empty, cut short or malformed.
        RequestTooLarge: it has more bytes, parts or images than ``limits``.
        UnsupportedMedia: its content type carries no image.
    """
    data = _whole(request, limits.body_bytes)
    kind = request.mimetype
    if kind == "multipart/form-data":
        body = _form(request, data, limits)
    elif kind == "application/json":
        body = Body(_from_json(data, limits))
    elif kind.startswith("image/") or kind == "application/octet-stream":
        body = Body([data])
    else:
        raise UnsupportedMedia(
            f"The content type is {kind or 'missing'!r}. Expected image/*,"
            " application/octet-stream, multipart/form-data or application/json."
        )
    return body


def discard(stream: IO[bytes], limit: int, *, seconds: float = 5.0) -> None:
    """Read what is left of a body, up to ``limit`` bytes and for about so many seconds.

    A client that sends a large body looks at the answer when it has sent it all. Closing the
    connection before that resets it, and the client never sees why.
    """
    deadline = time.monotonic() + seconds
    try:
        while limit > 0 and time.monotonic() < deadline:
            step = len(stream.read(min(limit, DISCARD_STEP)))
            if not step:
                return
            limit -= step
    except OSError:
        return


def _whole(request: Request, limit: int) -> bytes:
    """The body, read at once.

    Not through werkzeug's limited stream, which cuts a chunked body at the limit in silence.
    """
    length = request.content_length
    if length is None and not request.environ.get("wsgi.input_terminated"):
        length = 0
    if length is not None and length > limit:
        raise RequestTooLarge(f"The body has {length} bytes. Expected at most {limit}.")
    try:
        data: bytes = request.environ["wsgi.input"].read(limit + 1 if length is None else length)
    except OSError as exc:
        raise BadRequest("The body ended before it was complete.") from exc
    if len(data) > limit:
        raise RequestTooLarge(f"The body has more than {limit} bytes.")
    if not data:
        raise BadRequest("The body is empty. Expected an image.")
    if length is not None and len(data) < length:
        raise BadRequest(f"The body ended after {len(data)} bytes. Expected {length}.")
    return data


def _form(request: Request, data: bytes, limits: Limits) -> Body:
    parts = limits.images + EXTRA_PARTS
    parser = FormDataParser(
        stream_factory=lambda *_, **__: io.BytesIO(),  # bounded by the body; no temporary files
        max_form_memory_size=FIELD_BYTES,
        max_form_parts=parts,
        silent=False,
    )
    try:
        _, fields, files = parser.parse(
            io.BytesIO(data), request.mimetype, len(data), request.mimetype_params
        )
    except RequestEntityTooLarge as exc:
        raise RequestTooLarge(
            f"The form is too large. Expected at most {parts} parts, and {FIELD_BYTES} bytes in a"
            " field that is no file."
        ) from exc
    except ValueError as exc:
        raise BadRequest(f"The multipart body is malformed: {exc}.") from exc
    # A misspelt part that is ignored would leave an image, or a wish, without an answer.
    unknown = sorted(set(files) - {"image"} | set(fields) - {"model"})
    if unknown:
        raise BadRequest(
            f"The form has an unknown part {unknown[0][:40]!r}. Expected file parts 'image'"
            " and at most a field 'model'."
        )
    images = files.getlist("image")
    if not images:
        raise BadRequest("The form has no file part named 'image'.")
    _check_count(len(images), limits)
    return Body([part.stream.read() for part in images], fields.get("model"))


def _from_json(data: bytes, limits: Limits) -> list[Upload]:
    # Nothing can be listed without a comma: this bounds what the parser makes, at no cost.
    commas = data.count(b",")
    if commas > 2 * limits.images + EXTRA_COMMAS:
        raise RequestTooLarge(
            f"The JSON has {commas} commas. Expected a list of at most {limits.images} images."
        )
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"The body is not JSON: {exc}.") from exc
    images = body.get("images") if isinstance(body, dict) else None
    if not isinstance(images, list) or not images:
        raise BadRequest('The JSON has no images. Expected {"images": ["<base64>", …]}.')
    unknown = sorted(set(body) - {"images"})
    if unknown:
        raise BadRequest(
            f"The JSON has an unknown member {unknown[0][:40]!r}. Expected only 'images'."
        )
    _check_count(len(images), limits)
    return [_from_base64(text) for text in images]


def _check_count(images: int, limits: Limits) -> None:
    if images > limits.images:
        raise RequestTooLarge(f"The request has {images} images. Expected at most {limits.images}.")


def _from_base64(text: object) -> Upload:
    try:
        if isinstance(text, str):
            return base64.b64decode(_DATA_URL.sub("", text, count=1), validate=True)
    except ValueError:
        pass
    return InvalidImage("The image is not base64. Expected a string of standard base64.")
