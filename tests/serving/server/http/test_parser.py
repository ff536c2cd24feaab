"""Bytes of one connection in, requests out: framing, limits and backpressure, without a socket."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import BadRequest, HeaderTooLarge, ServingError, TargetTooLong, Unimplemented
from serving.server.http.message import Request
from serving.server.http.parser import (
    BUFFERED,
    HEADER_BYTES,
    HEADER_FIELDS,
    PIPELINED,
    STEP,
    Parser,
)

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def parser() -> Parser:
    return Parser(lambda _: None)


def body(request: Request) -> bytes:
    """Return what is buffered of a body, and mark it as read."""
    data, request._body, request.buffered = bytes(request._body), b"", 0
    return data


def full(parser: Parser) -> bool:
    return parser.full  # mypy would take an attribute as constant


def stopped(parser: Parser) -> bool:
    return parser.stopped


def fed(parser: Parser, data: bytes) -> list[Request]:
    """Feed data. Return the requests that are ready."""
    parser.feed(data)
    return list(parser.ready)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_requests_are_the_same_however_their_bytes_are_cut(parser: Parser, size: int) -> None:
    sent = b"\r\n" + GET + POST + b"Content-Length: 5\r\n\r\nhello" + CHUNKED
    sent += b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n" + GET
    seen = []
    for place in range(0, len(sent), size):
        parser.feed(sent[place : place + size])
        while parser.ready and parser.ready[0].complete:
            request = parser.ready.popleft()
            seen.append((request.method, body(request), request.error))
            parser.resume()
    assert seen == [
        ("GET", b"", None),
        ("POST", b"hello", None),
        ("POST", b"abcde", None),
        ("GET", b"", None),
    ]
    assert parser.at_boundary
    assert not stopped(parser)


def test_a_request_is_ready_as_soon_as_its_header_is_complete(parser: Parser) -> None:
    parser.feed(POST + b"Content-Length: 2\r\n\r")
    assert not parser.ready
    assert not parser.at_boundary
    parser.feed(b"\n")
    (request,) = parser.ready
    assert (request.method, request.complete, request.keep_alive) == ("POST", False, True)
    parser.feed(b"hi")
    assert request.complete
    assert parser.at_boundary


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_the_connection_persists_as_version_and_client_say(
    parser: Parser, head: bytes, keep_alive: bool
) -> None:
    assert [each.keep_alive for each in fed(parser, head + b"\r\n")] == [keep_alive]


def test_a_new_parser_is_at_a_boundary(parser: Parser) -> None:
    assert (parser.at_boundary, parser.full, parser.stopped) == (True, False, False)


# limits


@pytest.mark.parametrize("more", [0, 1])
def test_the_number_of_header_fields_is_bounded(parser: Parser, more: int) -> None:
    fields = b"A: x\r\n" * (HEADER_FIELDS - 1 + more)  # and Host
    (request,) = fed(parser, b"GET / HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n")
    assert parser.stopped is bool(more)
    if more:
        assert isinstance(request.error, HeaderTooLarge)
        assert str(request.error) == "The header has more than 100 fields."
    else:
        assert request.headers["a"].count("x") == HEADER_FIELDS - 1


@pytest.mark.parametrize("size", [1, STEP, STEP + 1, HEADER_BYTES])
def test_a_header_of_32_kb_is_accepted_however_it_is_cut(parser: Parser, size: int) -> None:
    head = b"GET / HTTP/1.1\r\nHost: h\r\nA: "
    head += b"x" * (HEADER_BYTES - len(head) - 4) + b"\r\n\r\n"
    for place in range(0, HEADER_BYTES, size):
        parser.feed(head[place : place + size])
    (request,) = parser.ready
    assert request.method == "GET"
    assert request.error is None


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_header_over_32_kb_and_two_steps_is_refused(parser: Parser, end: bytes) -> None:
    (request,) = fed(parser, b"GET / HTTP/1.1\r\nA: " + b"x" * (HEADER_BYTES + 2 * STEP) + end)
    assert isinstance(request.error, HeaderTooLarge)
    assert str(request.error) == "The header has more than 32768 bytes."
    assert (request.method, request.keep_alive, parser.stopped) == ("", False, True)


def test_one_byte_over_the_header_limit_is_refused(parser: Parser) -> None:
    head = b"GET / HTTP/1.1\r\nA: "
    parser.feed(head + b"x" * (HEADER_BYTES - len(head)))
    assert not stopped(parser)
    parser.feed(b"x")
    assert stopped(parser)
    assert isinstance(parser.ready[0].error, HeaderTooLarge)


@pytest.mark.parametrize("before", [b"", b"2\r\nhi\r\n"])
@pytest.mark.parametrize("framing", [b"1;", b"0\r\nA: "], ids=["chunk extension", "trailer"])
def test_framing_within_a_body_is_bounded_like_a_header(
    parser: Parser, framing: bytes, before: bytes
) -> None:
    (request,) = fed(parser, CHUNKED + before + framing + b"x" * (HEADER_BYTES + 2 * STEP))
    assert isinstance(request.error, HeaderTooLarge)
    assert stopped(parser)


@pytest.mark.parametrize("before", [b"", b"2\r\nhi"])
def test_framing_within_a_body_may_have_32_kb(parser: Parser, before: bytes) -> None:
    parser.feed(CHUNKED + before)
    framing = b"\r\n1;"[2 * (not before) :]
    parser.feed(framing + b"x" * (HEADER_BYTES - len(framing)))
    assert not stopped(parser)
    parser.feed(b"x")
    assert stopped(parser)


def test_the_framing_of_long_bodies_is_not_summed_up(parser: Parser) -> None:
    parser.feed(CHUNKED)
    for _ in range(HEADER_BYTES // 5):
        parser.feed(b"1\r\nx\r\n")
        body(parser.ready[0])
    parser.feed(b"0\r\n\r\n")
    assert parser.ready[0].complete
    for _ in range(HEADER_BYTES // len(GET) + 1):
        parser.ready.popleft()
        parser.feed(GET)
    assert not stopped(parser)


@pytest.mark.parametrize("more", [0, 1])
def test_a_target_is_bounded(parser: Parser, more: int) -> None:
    parser.feed(b"GET /" + b"x" * (HEADER_BYTES - 1 - 1000))
    parser.feed(b"x" * (1000 + more - 5))
    assert not stopped(parser)
    parser.feed(b"x" * 5)
    (request,) = parser.ready
    expected = TargetTooLong if more else HeaderTooLarge  # with "GET " the header is over, too
    assert type(request.error) is expected
    assert "32768 bytes" in str(request.error)


# malformed


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
        b"GET / HTTP/1.1\nHost: h\n\n",
        b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA\x00: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: \x00\r\n\r\n",
        POST + b"Content-Length: x\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: +1\r\n\r\n",
        POST + b"Content-Length: 1 1\r\n\r\n",
        POST + b"Content-Length: 1, 1\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n",
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
        POST + b"Content-Length: 18446744073709551616\r\n\r\n",
    ],
)
def test_ambiguous_framing_is_a_bad_request(parser: Parser, sent: bytes) -> None:
    requests = fed(parser, GET + sent + GET)
    assert [each.error is None for each in requests] == [True, False]
    assert isinstance(requests[1].error, BadRequest)
    assert not requests[1].keep_alive
    assert stopped(parser)
    assert parser._unparsed == b""


@pytest.mark.parametrize("chunk", [b"x\r\n", b"1\r\nab\r\n", b"-1\r\n", b"0x1\r\na\r\n", b"1\na\n"])
def test_a_malformed_chunk_fails_the_request_that_is_being_read(
    parser: Parser, chunk: bytes
) -> None:
    (request,) = fed(parser, CHUNKED)
    parser.feed(chunk)
    assert list(parser.ready) == [request]
    assert isinstance(request.error, BadRequest)
    assert str(request.error).startswith("The request is not HTTP/1.1: ")


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize(
    ("sent", "error"),
    [
        *((b"FOO / HTTP/1.1", Unimplemented), (b"get / HTTP/1.1", Unimplemented)),
        *((b"GETX / HTTP/1.1", Unimplemented), (b"GE T / HTTP/1.1", Unimplemented)),
        *((b"\r\n!~ / HTTP/1.1", Unimplemented), (b"PROPFIND / HTTP/1.1", Unimplemented)),
        *((b"SOURCE / ICE/1.0", Unimplemented), (b"DESCRIBE / RTSP/1.0", Unimplemented)),
        *((b"GET\t/ HTTP/1.1", BadRequest), (b" GET / HTTP/1.1", BadRequest)),
        *((b"{} / HTTP/1.1", BadRequest), (b"G(T / HTTP/1.1", BadRequest)),
        *((b"GET / ICE/1.0", BadRequest), (b"GET / HTTP/2.0", BadRequest)),
        *((b"GET / RTSP/1.0", BadRequest), (b"OPTIONS / RTSP/1.1", BadRequest)),
        *((b"GET  / HTTP/1.1", BadRequest), (b"GET /  HTTP/1.1", BadRequest)),
    ],
)
def test_an_unknown_method_is_not_implemented_and_another_line_is_malformed(
    parser: Parser, sent: bytes, error: type[ServingError], size: int
) -> None:
    sent += b"\r\nHost: h\r\n\r\n"
    for place in range(0, len(sent), size):
        if not stopped(parser):
            parser.feed(sent[place : place + size])
    (request,) = parser.ready
    assert type(request.error) is error
    assert (request.method, request.keep_alive) == ("", False)


@pytest.mark.parametrize(
    ("before", "error"),
    [(GET, Unimplemented), (POST + b"Content-Length: 3\r\n\r\n", BadRequest)],
)
def test_an_unknown_method_is_found_behind_whole_requests(
    parser: Parser, before: bytes, error: type[ServingError]
) -> None:
    """Behind a body from an earlier step, a bad request at least."""
    parser.feed(before)
    parser.feed(b"abc"[: 3 * (error is BadRequest)] + GET + b"FOO / HTTP/1.1\r\n\r\n")
    assert type(parser.ready[-1].error) is error


@pytest.mark.parametrize(
    ("sent", "head"),
    [
        (b"HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n", True),
        (b"HEAD / HTTP/1.1\r\nA : b\r\n\r\n", True),
        (b"HEAD / HTTP/9.9\r\n\r\n", True),
        (b"HEAD /" + bytes([120]) * HEADER_BYTES, True),
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\nFOO / HTTP/1.1\r\n\r\n", False),
        (b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n" + b"\r\n" * 3 * STEP, False),
    ],
    ids=["host", "field", "version", "target", "GET", "FOO", "lines"],
)
def test_a_malformed_head_request_is_one(parser: Parser, sent: bytes, head: bool) -> None:
    request = fed(parser, sent)[-1]
    assert request.error is not None
    assert request.head is head


# the last request

TRAILERS = (
    *(b"Connection: close", b"connection: keep-alive, close", b"Proxy-Connection: close"),
    *(b"Connection: Upgrade\r\nUpgrade: h2c", b"Connection: keep-alive", b"Host: x", b"X: y"),
)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("trailer", TRAILERS)
def test_behind_trailer_fields_all_is_parsed_or_the_connection_ends(
    parser: Parser, trailer: bytes, size: int
) -> None:
    sent = CHUNKED + b"1\r\nx\r\n0\r\n" + trailer + b"\r\n\r\n"
    for place in range(0, len(sent), size):
        parser.feed(sent[place : place + size])
    (request,) = parser.ready
    assert (body(request), request.complete, request.error) == (b"x", True, None)
    assert parser.ended is not request.keep_alive
    assert not stopped(parser)
    parser.feed(GET)
    assert stopped(parser) is not request.keep_alive
    assert [each.error for each in parser.ready] == [None] * (1 + request.keep_alive)


@pytest.mark.parametrize(
    "trailer", [b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Content-Length: 1"]
)
def test_a_trailer_field_that_names_framing_is_malformed(parser: Parser, trailer: bytes) -> None:
    (request,) = fed(parser, CHUNKED + b"0\r\n" + trailer + b"\r\n\r\n" + GET)
    assert isinstance(request.error, BadRequest)
    assert (request.keep_alive, parser.stopped) == (False, True)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
        b"GET / HTTP/1.0\r\nProxy-Connection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("behind", [GET, b"FOO", b"\x16"])
def test_nothing_is_parsed_behind_the_last_request(
    parser: Parser, sent: bytes, behind: bytes
) -> None:
    (request,) = fed(parser, sent)
    assert (request.keep_alive, request.complete, parser.ended) == (False, True, True)
    assert not stopped(parser)
    parser.feed(behind)
    assert list(parser.ready) == [request]
    assert stopped(parser)


PIECES = st.sampled_from(
    [
        *(GET, CHUNKED, POST, b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n"),
        *(
            b"2\r\nhi\r\n",
            b"0\r\n\r\n",
            b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
            b"abc",
            b" ",
            b"\n",
        ),
        *(
            b"CONNECT a:1 HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET * HTTP/1.0\r\n",
            b"Host: a, b\r\n",
            b"\x00",
        ),
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES | st.binary(max_size=4), max_size=12), st.integers(1, 40))
def test_whatever_is_sent_is_answered_once_or_fails_once(sent: list[bytes], size: int) -> None:
    """And each way to cut it has the same meaning."""
    data = b"".join(sent)
    meanings = [meaning(data, size) for size in (size, len(data) + 1)]
    assert meanings[0] == meanings[1]


def meaning(data: bytes, size: int) -> list[tuple[str, str, bool, bool]]:
    """Return method, path, completeness and failure of each request in data cut in parts."""
    parser, found = Parser(lambda _: None), []
    for place in range(0, len(data), size):
        if parser.stopped:
            break
        parser.feed(data[place : place + size])
        while parser.full and parser.ready:
            found.append(parser.ready.popleft())
            parser.resume()
    found += parser.ready
    assert sum(each.error is not None for each in found) <= 1
    return [
        (each.method, each.path, each.complete, each.error is not None)
        for each in found
        if each.method  # without one it never was a request
    ]


# backpressure


def test_the_body_of_a_pipelined_request_is_held_back(parser: Parser) -> None:
    """In chunks of two bytes, each of which could cost an object."""
    parser.feed(GET + CHUNKED + b"2\r\nhi\r\n" * 10_000)
    assert full(parser)
    assert 0 < sum(each.buffered for each in parser.ready) < STEP
    parser.ready.popleft()
    parser.resume()
    assert not full(parser)
    assert parser.ready[0].buffered == 20_000


def test_a_pipelined_request_with_a_byte_of_its_body_makes_the_parser_full(parser: Parser) -> None:
    parser.feed(GET + POST + b"Content-Length: 2\r\n\r\n")
    assert not full(parser)
    parser.feed(b"x")
    assert full(parser)


def test_an_unread_body_is_bounded(parser: Parser) -> None:
    (request,) = fed(parser, POST + b"Content-Length: 900000\r\n\r\n" + bytes(BUFFERED))
    assert not full(parser)
    parser.feed(b"x")
    assert full(parser)
    assert len(body(request)) == BUFFERED + 1
    parser.resume()
    assert not full(parser)
    parser.feed(bytes(900_000 - BUFFERED - 1))
    read = 0
    while not request.complete:
        assert full(parser)
        assert request.buffered <= BUFFERED + STEP
        read += len(body(request))
        parser.resume()
    assert read + request.buffered == 900_000 - BUFFERED - 1


@pytest.mark.parametrize(
    ("size", "expected"), [(2, False), (BUFFERED, False), (BUFFERED + 1, True)]
)
def test_a_body_before_a_pipelined_request_has_its_own_bound(
    parser: Parser, size: int, expected: bool
) -> None:
    parser.feed(POST + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
    parser.full = False
    parser.feed(GET)
    assert len(parser.ready) == 2
    assert full(parser) is expected


def test_the_number_of_pipelined_requests_is_bounded(parser: Parser) -> None:
    parser.feed(GET * PIPELINED)
    assert not full(parser)
    parser.feed(GET)
    assert full(parser)
    assert len(parser.ready) == PIPELINED + 1
    parser.ready.popleft()
    parser.resume()
    assert not full(parser)


def test_pipelined_requests_are_parsed_step_by_step(parser: Parser) -> None:
    parser.feed(GET * 12_000)
    assert len(parser.ready) <= STEP // len(GET) + 1
    answered = 0
    while parser.ready:
        parser.ready.popleft()
        answered += 1
        parser.resume()
    assert answered == 12_000


# upgrade, CONNECT and the end


def test_an_upgrade_is_ignored_and_its_body_is_read(parser: Parser) -> None:
    upgrade = b"Upgrade: h2c\r\nConnection: Upgrade\r\nA: b\r\nContent-Length: 2\r\n\r\n"
    first, second = fed(parser, POST + upgrade + b"hi" + GET)
    assert (first.method, first.target, body(first), first.complete) == ("POST", b"/", b"hi", True)
    assert first.headers.keys() == {"host", "connection", "a", "content-length"}
    assert (second.method, parser.stopped, parser.at_boundary) == ("GET", False, True)


def test_upgrade_without_its_connection_option_means_nothing(parser: Parser) -> None:
    (request,) = fed(parser, POST + b"Upgrade: h2c\r\nContent-Length: 2\r\n\r\nhi")
    assert (body(request), request.complete) == (b"hi", True)
    assert "upgrade" in request.headers


def test_an_upgrade_in_http_1_0_keeps_its_version(parser: Parser) -> None:
    (request,) = fed(parser, b"GET / HTTP/1.0\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
    assert (request.version, request.keep_alive, request.complete) == ("1.0", False, True)


def test_nothing_is_parsed_behind_connect(parser: Parser) -> None:
    (request,) = fed(parser, b"CONNECT a:1 HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
    assert (request.method, request.complete, request.keep_alive) == ("CONNECT", True, False)
    assert stopped(parser)


@pytest.mark.parametrize("part", [b"", b"GET / HT"])
def test_a_half_close_ends_the_connection_with_the_last_request(
    parser: Parser, part: bytes
) -> None:
    first, last = fed(parser, GET + GET + part)
    parser.feed_eof()
    assert (first.keep_alive, last.keep_alive, parser.stopped) == (True, False, True)
    assert len(parser.ready) == 2
    assert last.error is None


def test_a_half_close_within_a_body_fails_its_request_alone(parser: Parser) -> None:
    first, last = fed(parser, GET + POST + b"Content-Length: 9\r\n\r\n")
    parser.feed_eof()
    assert first.error is None
    assert str(last.error) == "The body ended before it was complete."
    assert stopped(parser)


def test_a_half_close_without_a_request_only_stops_the_parser(parser: Parser) -> None:
    parser.feed(b"GET / HT")
    parser.feed_eof()
    assert not parser.ready
    assert stopped(parser)
