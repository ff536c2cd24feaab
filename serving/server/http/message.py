"""An HTTP/1.1 message: a request, whose body may still come, and the answer to it as bytes.

Knows what a header says, and the errors of a message that is malformed; knows no socket, no parser
and no route.
"""

import asyncio
import email.utils
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Protocol
from urllib.parse import unquote_to_bytes

from serving.errors import BadRequest, ServingError

_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]*")  # and a port
_ORIGIN = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")  # what a proxy is asked by


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
    """A request whose header is there; its body may still come."""

    method = ""  # until its header is there
    target = b""
    version = "1.1"
    keeps_alive = True
    buffered = 0  # bytes of its body that came and were not read or, once dropped, came since
    complete = False
    dropped = False  # it was answered, and nobody reads the rest of its body
    came = 0.0  # when its header did, a ``time.monotonic()``
    error: ServingError | None = None  # it is malformed: there is no more of it
    _waiter: asyncio.Future[None] | None = None

    def __init__(self, wanted: "Callable[[Request], None]") -> None:
        """``wanted`` is told when somebody waits for more of the body."""
        self.headers: dict[str, str] = {}  # names in lower case
        self._wanted = wanted
        self._body: bytes | bytearray = b""  # what came of it and was not read

    @property
    def path(self) -> str:
        """The path of the target, its percent signs resolved."""
        path = self.target.partition(b"?")[0]
        return (unquote_to_bytes(path) if b"%" in path else path).decode("utf-8", "replace")

    @property
    def query(self) -> str:
        """What follows the question mark."""
        return self.target.partition(b"?")[2].decode("latin-1")

    @property
    def length(self) -> int | None:
        """The length that the header promises of the body; None of one in chunks, or of none."""
        text = self.headers.get("content-length")
        return None if text is None else int(text)

    @property
    def expects(self) -> bool:
        """Whether the client waits to be told before it sends the body; none of HTTP/1.0 does."""
        return self.version != "1.0" and self.headers.get("expect", "").lower() == "100-continue"

    def read_header(
        self, method: bytes, version: str, fields: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Its header is there. Fields of one name are joined, as in WSGI; a target that names the
        server, too, means the same without.

        Raises:
            BadRequest: it is not one of HTTP/1.1 (RFC 9112, 3.2 and 6.1), or of 1.0.
        """
        self.came = time.monotonic()
        self.version = version
        if not self.target.startswith(b"/") and (origin := _ORIGIN.match(self.target)):
            path = self.target[origin.end() :]
            self.target = path if path.startswith(b"/") else b"/" + path
        headers = self.headers
        for raw, value in fields:
            name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
        self._check()
        self.method = method.decode("latin-1")

    def _check(self) -> None:
        """What a proxy before this server might take otherwise is refused."""
        get = self.headers.get
        if self.version not in ("1.0", "1.1"):
            raise BadRequest(f"The request is of HTTP/{self.version}. Expected 1.1 or 1.0.")
        if not _HOST.fullmatch(get("host", "" if self.version == "1.0" else " ")):
            raise BadRequest("The header names no host, or several. Expected one field 'Host'.")
        if get("transfer-encoding", "chunked").lower() != "chunked":
            raise BadRequest("The body is transferred in an unknown coding. Expected 'chunked'.")

    def feed(self, chunk: bytes) -> None:
        """A part of the body came."""
        self.buffered += len(chunk)
        if not self.dropped:
            if not self._body:
                self._body = chunk
            else:  # chunks of two bytes take no memory for each
                if isinstance(self._body, bytes):
                    self._body = bytearray(self._body)
                self._body += chunk
            self._wake()

    def end(self) -> None:
        """The body is complete."""
        self.complete = True
        self._wake()

    def fail(self, error: ServingError) -> None:
        """It is malformed, or was cut short; nothing more of it can come."""
        self.error, self.keeps_alive = error, False
        self._wake()

    def drop(self) -> bool:
        """It was answered before its body was there: whether the rest will come, to be dropped."""
        self._body, self.buffered, self.dropped = b"", 0, True
        return self.error is None and not self.expects

    async def chunk(self) -> bytes:
        """The next part of the body; empty at its end.

        Raises:
            ServingError: it is malformed, or was cut short.
        """
        while not self._body:
            if self.error is not None:
                raise self.error
            if self.complete:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            self._wanted(self)
            await self._waiter
        data, self._body, self.buffered = bytes(self._body), b"", 0
        return data

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for its body."""
        return self._waiter is not None and not self._waiter.done()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def encoded(answer: Answer, request: Request, *, keeps: bool) -> bytes:
    """An answer as it is sent; ``keeps`` the connection for another."""
    close = b"" if keeps else b"Connection: close\r\n"
    if keeps and request.version == "1.0":
        close = b"Connection: keep-alive\r\n"
    length = b"Content-Length: %d\r\n" % len(answer.body)
    if "Content-Length" in answer.headers:  # of what a HEAD asks for, which is not there
        length = b""
    more = "".join(f"{name}: {text}\r\n" for name, text in answer.headers.items()).encode("latin-1")
    return b"%b%bContent-Type: %b\r\n%b%b%b\r\n%b" % (
        _status_line(answer.status),
        _date(int(time.time())),
        answer.content_type.encode(),
        length,
        more,
        close,
        b"" if request.method == "HEAD" else answer.body,
    )


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return f"Date: {email.utils.formatdate(second, usegmt=True)}\r\n".encode()
