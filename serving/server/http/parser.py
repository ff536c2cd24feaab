"""Turn the bytes of one connection into requests, with backpressure.

Knows httptools, which parses; knows no socket and no response. Everything held is bounded: a header
by bytes and fields, an unread body by bytes, pipelined requests by their number. The body of a
pipelined request is parsed no further than one step.
"""

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from itertools import islice

import httptools

from serving.errors import (
    BadRequest,
    HeaderTooLarge,
    ServingError,
    TargetTooLong,
    Unimplemented,
)
from serving.server.http.message import METHODS, Request

HEADER_BYTES = 32 * 1024  # always accepted
HEADER_FIELDS = 100
STEP = 16 * 1024  # bytes parsed at once; a header may exceed its limit by up to two steps
BUFFERED = 256 * 1024  # bytes of an unread body
PIPELINED = 16  # requests that wait behind another

UNKNOWN_METHOD = f"The method is unknown. Known methods: {b', '.join(sorted(METHODS)).decode()}."
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ ?")


class Parser:
    """The requests of one connection, in their order."""

    def __init__(self, on_read: Callable[[Request], None]) -> None:
        """``on_read`` is called when a reader has to wait for more of a body."""
        self.ready: deque[Request] = deque()  # header complete, not answered yet
        self.full = False  # backpressure: call ``resume`` before the next ``feed``
        self.ended = False  # no request follows
        self.stopped = False  # nothing is parsed any more
        self._on_read = on_read
        self._parser = httptools.HttpRequestParser(self)
        self._unparsed: bytes | memoryview = b""
        self._current: Request | None = None  # partly received
        self._method = b""  # of the current request, once its target begins
        self._step: bytes | memoryview = b""  # what is parsed at the moment
        self._held = b""  # steps before it in which the current header began
        self._aligned = True  # the first of these steps begins with a request
        self._fields: list[tuple[bytes, bytes]] = []  # of the current header
        self._framing = 0  # bytes since the last header ended or the last body byte

    @property
    def at_boundary(self) -> bool:
        """Return True if no request is partly received."""
        return self._current is None and not self._framing

    def feed(self, data: bytes) -> None:
        """Parse received bytes; the parser must be neither full nor stopped."""
        self._unparsed = data if len(data) <= STEP else memoryview(data)
        self._parse()

    def resume(self) -> None:
        """Continue after a part of a body was read or a request was answered."""
        self.full = self._is_full()
        self._parse()

    def feed_eof(self) -> None:
        """Handle the client's half-close: a request that is cut short fails."""
        if self._current is not None and self._current.method:
            self._current.fail(BadRequest("The body ended before it was complete."))
        elif self.ready:
            self.ready[-1].keep_alive = False
        self.stop()

    def stop(self) -> None:
        """Parse nothing more."""
        self._current, self._unparsed = None, b""
        self.ended = self.stopped = True

    def _parse(self) -> None:
        while self._unparsed and not self.full:
            step, self._unparsed = self._unparsed[:STEP], self._unparsed[STEP:]
            self._step = step
            self._framing += len(step)
            if self._current is None or self._current.method:
                self._held, self._aligned = b"", self._current is None
            try:
                self._parser.feed_data(step)
            except httptools.HttpParserUpgrade as exc:
                self._ignore_upgrade(step[exc.args[0] :])
            except httptools.HttpParserError as exc:
                if self.ended:
                    self.stop()
                else:
                    self._fail(self._reason(exc))
            if self._current is not None and not self._current.method:
                self._held += step
            if self._framing > HEADER_BYTES and not self.stopped:
                self._fail(HeaderTooLarge(f"The header has more than {HEADER_BYTES} bytes."))
            self.full = self._is_full()

    def _reason(self, exc: httptools.HttpParserError) -> ServingError:
        """Return why httptools failed."""
        raised = exc.__context__  # by one of the callbacks
        if isinstance(raised, ServingError):
            return raised
        if isinstance(exc, httptools.HttpParserInvalidMethodError) and self._aligned:
            line = self._held + self._step
            # httptools does not say where it failed.
            end = bisect_left(range(len(line)), True, key=lambda last: _fails(line[: last + 1]))
            if _TOKEN.fullmatch(line[: end + 1].rpartition(b"\n")[2]):
                return Unimplemented(UNKNOWN_METHOD)
        return BadRequest(f"The request is not HTTP/1.1: {exc}.")

    def _ignore_upgrade(self, rest: bytes | memoryview) -> None:
        """Parse the header again without ``Upgrade``, which a server may ignore (RFC 9110, 7.8).

        httptools skips the body, which HTTP/2 clients (Java's, for one) send all the same.
        """
        request = self._current
        if request is None:  # CONNECT: the handler refuses the tunnel, and nothing may follow
            self.ready[-1].keep_alive = False
            self.stop()
            return
        fields = [f"{name}: {text}" for name, text in request.headers.items() if name != "upgrade"]
        version = f" HTTP/{request.version}".encode()
        line = request.method.encode() + b" " + request.target + version
        header = b"\r\n".join([line, *(each.encode("latin-1") for each in fields), b"", b""])
        self._parser, self._current = httptools.HttpRequestParser(self), None
        self._unparsed = memoryview(b"".join([header, rest, self._unparsed]))

    def _is_full(self) -> bool:
        ready = self.ready
        if len(ready) < 2:
            return bool(ready) and ready[0].buffered > BUFFERED
        if len(ready) > PIPELINED or ready[0].buffered > BUFFERED:
            return True
        return any(each.buffered for each in islice(ready, 1, None))  # cannot be read yet

    def _fail(self, error: ServingError) -> None:
        """Answer malformed input in its turn; nothing after it can be parsed."""
        request = self._current or Request(self._on_read)
        request.fail(error)
        if not request.method:
            request.head = self._current is not None and self._method == b"HEAD"
            self.ready.append(request)
        self.stop()

    # callbacks of httptools

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self.ended:
            raise BadRequest("Nothing may follow the last request.")
        self._current, self._method, self._fields = Request(self._on_read), b"", []

    def on_url(self, part: bytes) -> None:
        """Append a part of the target."""
        request = self._open
        if not self._method:
            self._method = self._parser.get_method()
            if self._method not in METHODS:
                raise Unimplemented(UNKNOWN_METHOD)
        request.target += part
        if len(request.target) > HEADER_BYTES:
            raise TargetTooLong(f"The target has more than {HEADER_BYTES} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header field; trailer fields are never looked at."""
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Make the request ready to be answered."""
        if len(self._fields) > HEADER_FIELDS:
            raise HeaderTooLarge(f"The header has more than {HEADER_FIELDS} fields.")
        request, parser = self._open, self._parser
        version = parser.get_http_version()
        line = self._method + b" " + request.target + b" HTTP/"
        if line not in self._held + self._step and version != "0.9":
            # httptools accepts several spaces, and RTSP/1.0.
            raise BadRequest("The request line is malformed. Expected 'GET /path HTTP/1.1'.")
        request.keep_alive = parser.should_keep_alive()
        request.read_header(self._method, version, self._fields)
        self._framing = 0
        if "upgrade" not in request.headers or not parser.should_upgrade():
            self.ready.append(request)

    def on_body(self, part: bytes) -> None:
        """Feed a part of the body."""
        self._framing = 0
        self._open.feed(part)

    def on_message_complete(self) -> None:
        """End the body."""
        self._framing = 0
        request = self._open
        if self._parser.should_upgrade() and "upgrade" in request.headers:
            return  # it is parsed again
        # httptools obeys trailer fields, too: it parses nothing behind "Connection: close".
        if not (request.keep_alive and self._parser.should_keep_alive()):
            request.keep_alive, self.ended = False, True
        request.end()
        self._current = None

    @property
    def _open(self) -> Request:
        assert self._current is not None  # noqa: S101 - on_message_begin was called
        return self._current


def _fails(data: bytes) -> bool:
    """Return True if httptools fails within these bytes, the first ones of a request."""
    try:
        httptools.HttpRequestParser(None).feed_data(data)
    except httptools.HttpParserUpgrade:
        return False
    except httptools.HttpParserError:
        return True
    return False
