"""What a client sends, as the requests that it means.

Knows httptools, which parses; knows no socket and no answer. What is held is bounded: a header by
bytes and fields, a body that nobody reads yet by bytes, requests that wait by their number. Of one
behind another no more of its body is parsed than a step.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice

import httptools

from serving.errors import BadRequest, HeaderTooLarge, ServingError, TargetTooLong
from serving.server.http.message import Request

HEADER_BYTES = 32 * 1024  # so many are always taken
HEADER_FIELDS = 100
STEP = 16 * 1024  # bytes that are parsed at once; a header may have up to two steps more
BUFFERED = 256 * 1024  # bytes of bodies that nobody reads yet
PIPELINED = 16  # requests that wait for the answers before theirs


class Parser:
    """The requests of one connection, one after another."""

    def __init__(self, wanted: Callable[[Request], None]) -> None:
        """``wanted`` is told when somebody waits for more of a body."""
        self.ready: deque[Request] = deque()  # whose header is there, until they are answered
        self.full = False  # more came than is kept up with; the rest waits to be parsed
        self.over = False  # what comes is not parsed any more
        self._wanted = wanted
        self._parser = httptools.HttpRequestParser(self)
        self._unparsed: bytes | memoryview = b""
        self._coming: Request | None = None  # its header or body is being read
        self._fields: list[tuple[bytes, bytes]] = []  # of its header
        self._around = 0  # bytes since the last that ended a header or belonged to a body

    @property
    def between(self) -> bool:
        """Whether nothing has come of a request that is not whole."""
        return self._coming is None and not self._around

    def feed(self, data: bytes) -> None:
        """Bytes came, while it was neither full nor over."""
        self._unparsed = data if len(data) <= STEP else memoryview(data)
        self._parse()

    def go_on(self) -> None:
        """Some of it was read or answered: parse what waits."""
        self.full = self._is_full()
        self._parse()

    def end(self) -> None:
        """No more bytes come."""
        if self._coming is not None and self._coming.method:
            self._coming.fail(BadRequest("The body ended before it was complete."))
        elif self.ready:
            self.ready[-1].keeps_alive = False
        self.stop()

    def _parse(self) -> None:
        """Parse as far as somebody keeps up with it."""
        while self._unparsed and not self.full:
            step, self._unparsed = self._unparsed[:STEP], self._unparsed[STEP:]
            self._around += len(step)
            try:
                self._parser.feed_data(step)
            except httptools.HttpParserUpgrade as exc:
                self._ignore_upgrade(step[exc.args[0] :])
            except httptools.HttpParserError as exc:
                known = exc.__context__
                told = BadRequest(f"The request is not HTTP/1.1: {exc}.")
                self._fail(known if isinstance(known, ServingError) else told)
            if self._around > HEADER_BYTES and not self.over:
                self._fail(HeaderTooLarge(f"The header has more than {HEADER_BYTES} bytes."))
            self.full = self._is_full()

    def _ignore_upgrade(self, rest: bytes | memoryview) -> None:
        """Parse the header again without its wish, as a server may. httptools skips the body, which
        HTTP/2 clients (Java's, for one) send all the same."""
        request = self._coming
        if request is None:  # CONNECT, which asks for a tunnel and gets none
            self.ready[-1].keeps_alive = False
            self.stop()
            return
        fields = [f"{name}: {text}" for name, text in request.headers.items() if name != "upgrade"]
        version = f" HTTP/{request.version}".encode()
        line = request.method.encode() + b" " + request.target + version
        header = b"\r\n".join([line, *(each.encode("latin-1") for each in fields), b"", b""])
        self._parser, self._coming = httptools.HttpRequestParser(self), None
        self._unparsed = memoryview(b"".join([header, rest, self._unparsed]))

    def _is_full(self) -> bool:
        ready = self.ready
        if len(ready) > 1 and any(each.buffered for each in islice(ready, 1, None)):
            return True  # nobody can read it yet
        return len(ready) > PIPELINED or sum(each.buffered for each in ready) > BUFFERED

    def _fail(self, error: ServingError) -> None:
        """What came is malformed, and nothing after it can be read. It is answered in its turn."""
        request = self._coming or Request(self._wanted)
        request.fail(error)
        if not request.method:
            self.ready.append(request)
        self.stop()

    def stop(self) -> None:
        """Parse nothing that comes any more."""
        self._coming, self._unparsed, self.over = None, b"", True

    # what httptools tells

    def on_message_begin(self) -> None:
        """A request comes."""
        self._coming, self._fields = Request(self._wanted), []

    def on_url(self, part: bytes) -> None:
        """A part of its target."""
        request = self._read
        request.target += part
        if len(request.target) > HEADER_BYTES:
            raise TargetTooLong(f"The target has more than {HEADER_BYTES} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of its header, or one after its body, at which nobody looks."""
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Its header is there: it can be answered."""
        if len(self._fields) > HEADER_FIELDS:
            raise HeaderTooLarge(f"The header has more than {HEADER_FIELDS} fields.")
        request, parser = self._read, self._parser
        request.keeps_alive = parser.should_keep_alive()
        request.read_header(parser.get_method(), parser.get_http_version(), self._fields)
        self._around = 0
        if "upgrade" not in request.headers or not parser.should_upgrade():
            self.ready.append(request)

    def on_body(self, part: bytes) -> None:
        """A part of its body."""
        self._around = 0
        self._read.feed(part)

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._around = 0
        if self._parser.should_upgrade() and "upgrade" in self._read.headers:
            return  # it comes again
        self._read.end()
        self._coming = None

    @property
    def _read(self) -> Request:
        """The request that is being read."""
        assert self._coming is not None  # noqa: S101 - the parser told of its begin
        return self._coming
