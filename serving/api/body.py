"""Take the images out of a request's body: the file itself, a form, or base64 in JSON.

Knows the limits on bytes and parts; knows no server, no pixels and no model. An upload that cannot
be decoded, as from malformed base64, is an error in its place.
"""

import base64
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from serving.errors import (
    BadRequest,
    InvalidImage,
    RequestTooLarge,
    UnsupportedMedia,
)
from serving.inference.images.decoder import Upload

# A form may carry a few fields beside its images.
EXTRA_PARTS = 8
# Bytes that any compressed body may have inflated, and how many times its size a larger one.
INFLATED = 1024 * 1024
RATIO = 8
# A JSON body has a comma between two images, one in each data URL, and hardly any other.
EXTRA_COMMAS = 8

PIECE = 128 * 1024  # characters of base64: to decode them takes 1 ms

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


def parse(data: bytes, content_type: str, limits: Limits) -> Body:
    """The images of a body, in their order.

    Raises:
        BadRequest: the body is empty or malformed.
        RequestTooLarge: it has more parts or images than ``limits``.
        UnsupportedMedia: its content type carries no image.
    """
    if not data:
        raise BadRequest("The body is empty. Expected an image.")
    kind, options = parse_options_header(content_type)
    kind = kind.lower()
    if kind == "multipart/form-data":
        return _form(data, options, limits)
    if kind == "application/json":
        return Body(_from_json(data, limits))
    if kind.startswith("image/") or kind == "application/octet-stream":
        return Body([data])
    raise UnsupportedMedia(
        f"The content type is {kind or 'missing'!r}. Expected image/*, application/octet-stream,"
        " multipart/form-data or application/json."
    )


def inflated(data: bytes, encoding: str, limit: int) -> bytes:
    """A body without its ``Content-Encoding``.

    Raises:
        BadRequest: it is not encoded so, or cut short.
        RequestTooLarge: it would have more than ``limit`` bytes, or far more than were sent, which
            are not made.
        UnsupportedMedia: the encoding is unknown.
    """
    encoding = encoding.lower()
    if encoding == "identity":
        return data
    if encoding not in ("gzip", "deflate"):
        raise UnsupportedMedia(
            f"The content encoding is {encoding[:40]!r}. Expected gzip, deflate or none."
        )
    # Or a few kilobytes from each of many clients would fill the memory.
    limit = min(limit, max(INFLATED, RATIO * len(data)))
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # both, told by their first bytes
    try:
        found = unpacker.decompress(data, limit + 1)
    except zlib.error as exc:
        raise BadRequest(f"The body is not in the encoding {encoding}: {exc}.") from exc
    if len(found) > limit:
        raise RequestTooLarge(f"The body inflates to more than {limit} bytes.")
    if not unpacker.eof or unpacker.unused_data:
        raise BadRequest(f"The body is not one whole stream in the encoding {encoding}.")
    return found


def _form(data: bytes, options: Mapping[str, str], limits: Limits) -> Body:
    parts = limits.images + EXTRA_PARTS
    try:
        found = list(_parts(data, options.get("boundary", ""), parts))
    except ParserLimitReached as exc:
        raise RequestTooLarge(
            f"The form is too large: {exc}. Expected at most {parts} parts."
        ) from exc
    except MultipartError as exc:
        raise BadRequest(f"The multipart body is malformed: {exc}.") from exc
    # A misspelt part that is ignored would leave an image, or a wish, without an answer.
    if unknown := {name for name, _ in found} - {"image", "model"}:
        raise BadRequest(
            f"The form has an unknown part {min(unknown)[:40]!r}. Expected parts 'image' and at"
            " most a field 'model'."
        )
    images = [part for name, part in found if name == "image"]
    if not images:
        raise BadRequest("The form has no part named 'image'.")
    check_count(len(images), limits)
    models = [part.decode(errors="replace") for name, part in found if name == "model"]
    if len(models) > 1:
        raise BadRequest("The form has more than one field 'model'.")
    return Body(images, models[0] if models else None)


def _parts(data: bytes, boundary: str, most: int) -> Iterator[tuple[str, bytes]]:
    """The name and the content of each part of a form."""
    name, content = "", b""
    with PushMultipartParser(boundary, max_segment_count=most) as parser:
        for event in parser.parse(data):
            if isinstance(event, MultipartSegment):
                name, content = event.name or "", b""
            elif event is not None:
                content = event  # in one piece, as the body is
            else:
                yield name, content


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
    check_count(len(images), limits)
    return [from_base64(text) for text in images]


def check_count(images: int, limits: Limits) -> None:
    """See that a request may have so many images.

    Raises:
        BadRequest: there is none.
        RequestTooLarge: there are too many.
    """
    if images < 1:
        raise BadRequest("The request has no image.")
    if images > limits.images:
        raise RequestTooLarge(f"The request has {images} images. Expected at most {limits.images}.")


def from_base64(text: object) -> Upload:
    """The bytes of a string of base64, or of a data URL; what is none is an error in its place."""
    try:
        if isinstance(text, str):
            return _decoded(_DATA_URL.sub("", text, count=1))
    except ValueError:
        pass
    return InvalidImage("The image is not base64. Expected a string of standard base64.")


def _decoded(text: str) -> bytes:
    """Piece by piece, so that no other thread has to wait for long."""
    if len(text) <= PIECE:
        return base64.b64decode(text, validate=True)
    if "=" in text[:-2]:
        raise ValueError("There is something behind the end.")
    pieces = (text[start : start + PIECE] for start in range(0, len(text), PIECE))
    return b"".join(base64.b64decode(each, validate=True) for each in pieces)
