"""HTTP/1.1 messages: a request, whose body may still be arriving, and a response as bytes.

Knows what header fields mean and which requests are malformed; knows no socket, parser or route.
"""

import asyncio
import email.utils
import ipaddress
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache
from http import HTTPMethod, HTTPStatus
from typing import NoReturn, Protocol
from urllib.parse import unquote_to_bytes

from serving.errors import BadRequest, BodyTooSlow, RequestTooLarge, ServingError, Unimplemented

# Yields a function that is called with the size of each part of a body that is arriving.
Arriving = Callable[[], AbstractContextManager[Callable[[int], None]]]

METHODS = frozenset(each.encode() for each in HTTPMethod)  # of RFC 9110, and PATCH

# A host with a port (RFC 3986, 3.2). No comma: several fields are joined with one.
_NAME = r"(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*"
_HOST = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|" + _NAME + r")(?::[0-9]{0,5})?")
_ORIGIN = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?]*)")  # of a target in absolute form


class Answer(Protocol):
    """What the engine needs of an answer."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def body(self) -> bytes:
        """The content."""

    @property
    def content_type(self) -> str:
        """The value of ``Content-Type``."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Further header fields."""


class Request:
    """A request whose header is complete; its body may still be arriving."""

    method = ""  # until the header is complete
    head = False  # the method is HEAD: the answer has no body, even if the header is malformed
    target = b""
    version = "1.1"
    keep_alive = True
    complete = False  # the body is complete, too
    buffered = 0  # bytes of the body received and not read or, after ``discard``, received since
    received_at = 0.0  # when the header was complete, a ``time.monotonic()``
    error: ServingError | None = None  # why it is malformed; nothing more of it follows
    _discarding = False
    _reader: asyncio.Future[None] | None = None

    def __init__(self, on_read: "Callable[[Request], None]") -> None:
        """``on_read`` is called when a reader has to wait for more of the body."""
        self.headers: dict[str, str] = {}  # by name in lower case
        self._on_read = on_read
        self._body: bytes | bytearray = b""  # received and not read

    @cached_property
    def path(self) -> str:
        """The path of the target, percent-decoded; read once the header is complete."""
        path = self.target.partition(b"?")[0]
        return (unquote_to_bytes(path) if b"%" in path else path).decode("utf-8", "replace")

    @property
    def query(self) -> str:
        """The query of the target, as sent."""
        return self.target.partition(b"?")[2].decode("latin-1")

    @property
    def expects_continue(self) -> bool:
        """Return True if the client waits for ``100 Continue``; HTTP/1.0 does not know it."""
        return self.version != "1.0" and self.headers.get("expect", "").lower() == "100-continue"

    @property
    def reader_waits(self) -> bool:
        """Return True if a reader waits for more of the body."""
        return self._reader is not None and not self._reader.done()

    def read_header(
        self, method: bytes, version: str, fields: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Set method, version and header fields; join fields of one name, as WSGI does, and reduce
        a target in absolute form to origin form.

        Raises:
            BadRequest: if they break RFC 9112, 3.2, 6.1 or 6.3.
            Unimplemented: if a transfer coding is unknown.
        """
        self.received_at = time.monotonic()
        self.version, self.head = version, method == b"HEAD"
        headers = self.headers
        for raw, value in fields:
            name, text = raw.decode("latin-1").lower(), value.decode("latin-1").rstrip(" \t")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
        self._check()
        if not self.target.startswith(b"/") or b"#" in self.target or method == b"CONNECT":
            self._reduce_target(method)
        if "connection" in headers or version == "1.0":
            self._read_connection()
        self.method = method.decode("latin-1")

    def _check(self) -> None:
        """Refuse what a proxy in front of this server might interpret in another way."""
        get = self.headers.get
        if self.version not in ("1.0", "1.1"):
            raise BadRequest(f"HTTP/{self.version} is not supported. Expected HTTP/1.1 or 1.0.")
        if not _is_host(get("host", "" if self.version == "1.0" else " ")):
            raise BadRequest("The Host field is missing, repeated or malformed. Expected one host.")
        coding = get("transfer-encoding")
        if coding is not None and (coding.lower() != "chunked" or self.version == "1.0"):
            self._refuse_coding(coding.lower())

    def _refuse_coding(self, coding: str) -> NoReturn:
        """Raise why a transfer coding is refused: its end is unknown, or the coding itself."""
        *others, last = (each.strip(" \t") for each in coding.split(","))
        if self.version == "1.0" or last != "chunked" or {"", "chunked"} & {*others}:
            raise BadRequest("Transfer-Encoding must be 'chunked', in HTTP/1.1 alone.")
        raise Unimplemented(f"The transfer coding {others[0]!r} is unknown. Expected 'chunked'.")

    def _reduce_target(self, method: bytes) -> None:
        """Reduce a target in absolute form to origin form, and refuse other malformed ones."""
        if method == b"CONNECT":
            if ":" in (authority := self.target.decode("latin-1")) and _is_host(authority):
                return
        elif origin := _ORIGIN.match(self.target):
            path, host = self.target[origin.end() :], origin[1].decode("latin-1")
            if host and _is_host(host) and b"#" not in path:
                self.target = path if path.startswith(b"/") else b"/" + path
                self.headers["host"] = host  # RFC 9112, 3.2.2
                return
        elif self.target == b"*" and method == b"OPTIONS":
            return
        raise BadRequest("The target is malformed. Expected a path, as in 'GET /path HTTP/1.1'.")

    def _read_connection(self) -> None:
        """Find out if the connection persists (RFC 9112, 9.3): ``close`` comes first."""
        text = self.headers.get("connection", "").lower()
        options = {each.strip(" \t") for each in text.split(",")}
        if "close" in options or (self.version == "1.0" and "keep-alive" not in options):
            self.keep_alive = False

    def feed(self, data: bytes) -> None:
        """Buffer a part of the body, or discard it if the request was answered."""
        self.buffered += len(data)
        if not self._discarding:
            if not self._body:
                self._body = data
            else:  # one buffer: chunks of two bytes must not cost an object each
                if isinstance(self._body, bytes):
                    self._body = bytearray(self._body)
                self._body += data
            self._wake()

    def end(self) -> None:
        """Mark the body as complete."""
        self.complete = True
        self._wake()

    def fail(self, error: ServingError) -> None:
        """Mark the request as malformed or cut short."""
        self.error, self.keep_alive = error, False
        self._wake()

    def discard(self) -> bool:
        """Discard the body of a request that was answered before it was read. Return True if the
        rest of the body will arrive."""
        self._body, self.buffered, self._discarding = b"", 0, True
        return self.error is None and not self.expects_continue

    async def chunk(self) -> bytes:
        """Return the next part of the body, empty at its end, or raise why there is none."""
        while not self._body:
            if self.error is not None:
                raise self.error
            if self.complete:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            self._on_read(self)
            await self._reader
        data, self._body, self.buffered = bytes(self._body), b"", 0
        return data

    async def read(self, limit: int, arriving: Arriving, deadline: float) -> bytes:
        """Return the whole body; ``arriving`` counts its bytes until it is complete.

        Raises:
            BadRequest: if the body is malformed or cut short.
            BodyTooSlow: if it is not complete by ``deadline``, a ``time.monotonic()``.
            RequestTooLarge: if it has more than ``limit`` bytes.
            ServingError: as ``arriving`` raises, if too many bytes are arriving.
        """
        text = self.headers.get("content-length")
        if text is not None and int(text) > limit:
            raise RequestTooLarge(f"The body has {int(text)} bytes. Expected at most {limit}.")
        if self.complete and self.buffered <= limit:
            return await self.chunk()
        parts, size = [], 0
        try:
            with arriving() as received:
                async with asyncio.timeout_at(deadline):
                    while part := await self.chunk():
                        parts.append(part)
                        size += len(part)
                        if size > limit:
                            raise RequestTooLarge(f"The body has more than {limit} bytes.")
                        received(len(part))
        except TimeoutError:
            raise BodyTooSlow("The body did not arrive in time.") from None
        return b"".join(parts)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def encoded(answer: Answer, request: Request, *, keep_alive: bool) -> bytes:
    """Return the bytes of a response; without a body if the method is HEAD."""
    connection = b"" if keep_alive else b"Connection: close\r\n"
    if keep_alive and request.version == "1.0":
        connection = b"Connection: keep-alive\r\n"
    length = b"Content-Length: %d\r\n" % len(answer.body)
    if "Content-Length" in answer.headers:  # the answer to HEAD: the length of the absent body
        length = b""
    more = "".join(f"{name}: {text}\r\n" for name, text in answer.headers.items()).encode("latin-1")
    return b"%b%bContent-Type: %b\r\n%b%b%b\r\n%b" % (
        _status_line(answer.status),
        _date(int(time.time())),
        answer.content_type.encode(),
        length,
        more,
        connection,
        b"" if request.head else answer.body,
    )


@lru_cache(maxsize=64)
def _is_host(text: str) -> bool:
    """Return True if the text is a host, with a port or without."""
    found = _HOST.fullmatch(text)
    if found is None:
        return False
    if found["address"] is not None:
        try:
            ipaddress.IPv6Address(found["address"])
        except ValueError:
            return False
    return True


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return f"Date: {email.utils.formatdate(second, usegmt=True)}\r\n".encode()
