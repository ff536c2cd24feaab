"""Receive the body of a request, admit it and parse it: a file, a form, or base64 in JSON.

Knows the limits on bytes, parts and places; knows no server, no pixels and no model. An upload that
cannot be decoded, as from malformed base64, is an error in its place.
"""

import asyncio
import base64
import json
import re
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from serving.api.exchange import Exchange, positive
from serving.errors import (
    BadRequest,
    DeadlineExceeded,
    InvalidImage,
    RequestTooLarge,
    UnsupportedMedia,
)
from serving.inference.admission import Admission
from serving.inference.images.decoder import Upload

Parsed = TypeVar("Parsed")
Result = TypeVar("Result")

SHORT = 128 * 1024  # bytes of a body that is parsed in the event loop: 3 ms at most
EXTRA_PARTS = 8  # fields of a form beside its images
# A compressed body may inflate to this many bytes, or to this many times its own size.
INFLATED = 1024 * 1024
RATIO = 8
# A JSON body has a comma between two images, one in each data URL, and hardly any other.
EXTRA_COMMAS = 8
PIECE = 128 * 1024  # characters of base64, which take 1 ms to decode

_DATA_URL = re.compile(r"\Adata:[^,]*,")


@dataclass(frozen=True)
class Limits:
    """The bounds of one request."""

    body_bytes: int
    images: int


class Intake:
    """The way from a request to its parsed body, for requests that share one ``Admission``."""

    def __init__(self, admission: Admission, limits: Limits, *, timeout_ms: int) -> None:
        self.admission, self.limits = admission, limits
        self._timeout_ms = timeout_ms

    async def run(
        self,
        exchange: Exchange,
        parse: Callable[[bytes], Parsed],
        respond: Callable[[Parsed, float], Awaitable[Result]],
    ) -> Result:
        """Receive the body, admit the request, parse the body, and ``respond`` to it while the
        request holds its place. ``respond`` gets the deadline, a ``time.monotonic()``, too.

        Raises:
            ServingError: any error of the tree.
        """
        asked, milliseconds = exchange.header("x-request-timeout-ms"), self._timeout_ms
        if asked is not None:  # a client can only shorten the deadline
            milliseconds = min(milliseconds, positive("The header X-Request-Timeout-Ms", asked))
        deadline = exchange.began + milliseconds / 1000
        data = await exchange.read(deadline)
        encoding = exchange.header("content-encoding")
        if encoding is not None:
            data = await self._inflate(data, encoding, deadline)
        with self.admission.request(len(data)):
            if len(data) <= SHORT:
                parsed = parse(data)
            else:
                parsed = await _in_thread(partial(parse, data), deadline)
            return await respond(parsed, deadline)

    async def _inflate(self, data: bytes, encoding: str, deadline: float) -> bytes:
        """Inflate in a thread: a few bytes may become many."""
        with self.admission.holding(len(data)):
            inflate = partial(inflated, data, encoding, self.limits.body_bytes)
            return await _in_thread(inflate, deadline)


async def _in_thread(work: Callable[[], Result], deadline: float) -> Result:
    try:
        async with asyncio.timeout_at(deadline):
            return await asyncio.to_thread(work)
    except TimeoutError:
        raise DeadlineExceeded("The deadline passed before the body was parsed.") from None


@dataclass(frozen=True)
class Body:
    """The images of a request, and the model if a form field names one."""

    uploads: Sequence[Upload]
    model: str | None = None


def parse(data: bytes, content_type: str, limits: Limits) -> Body:
    """Return the images of a body, in their order.

    Raises:
        BadRequest: the body is empty or malformed.
        RequestTooLarge: the body has more parts or images than ``limits``.
        UnsupportedMedia: the content type carries no image.
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
    """Remove the ``Content-Encoding`` of a body.

    Raises:
        BadRequest: the data are not in this encoding, or are cut short.
        RequestTooLarge: the result would exceed ``limit`` bytes, or a multiple of ``data``; it is
            not made.
        UnsupportedMedia: the encoding is unknown.
    """
    encoding = encoding.lower()
    if encoding == "identity":
        return data
    if encoding not in ("gzip", "deflate"):
        raise UnsupportedMedia(
            f"The content encoding is {encoding[:40]!r}. Expected gzip, deflate or none."
        )
    # Otherwise a few kilobytes from each of many clients would fill the memory.
    limit = min(limit, max(INFLATED, RATIO * len(data)))
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # detects gzip or zlib
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
    # An ignored typo would leave an image without an answer.
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
    """Yield the name and the content of each part of a form."""
    name, content = "", b""
    with PushMultipartParser(boundary, max_segment_count=most) as parser:
        for event in parser.parse(data):
            if isinstance(event, MultipartSegment):
                name, content = event.name or "", b""
            elif event is not None:
                content = event  # whole, because the body was fed at once
            else:
                yield name, content


def _from_json(data: bytes, limits: Limits) -> list[Upload]:
    # A list needs commas, so this bounds at no cost what the JSON parser allocates.
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
    """Raise BadRequest for a request without images, RequestTooLarge for one with too many."""
    if images < 1:
        raise BadRequest("The request has no image.")
    if images > limits.images:
        raise RequestTooLarge(f"The request has {images} images. Expected at most {limits.images}.")


def from_base64(text: object) -> Upload:
    """Decode base64 or a data URL; return an error for anything else."""
    try:
        if isinstance(text, str):
            return _decoded(_DATA_URL.sub("", text, count=1))
    except ValueError:
        pass
    return InvalidImage("The image is not base64. Expected a string of standard base64.")


def _decoded(text: str) -> bytes:
    """Decode in pieces, so that no other thread waits long for the interpreter lock."""
    if len(text) <= PIECE:
        return base64.b64decode(text, validate=True)
    if "=" in text[:-2]:
        raise ValueError("Data follow the padding.")
    pieces = (text[start : start + PIECE] for start in range(0, len(text), PIECE))
    return b"".join(base64.b64decode(each, validate=True) for each in pieces)
