"""Bytes on a socket: what a client may send, and what it gets."""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from serving.api.exchange import Answer
from serving.errors import ServingError
from serving.server.http import connection as http
from serving.server.http.connection import Connection
from serving.server.http.message import Request
from serving.server.http.parser import STEP, Parser
from serving.server.http.pool import Server
from tests.serving.waiting import until

LONG = b"x" * 100_000


class Listening(Server):
    """A server on a port, whose loop runs in a thread."""

    port: int
    loop: asyncio.AbstractEventLoop


def told(request: Request) -> Answer | None:
    """What needs no waiting."""
    return Answer(200, b"now") if request.path == "/now" else None


async def echo(request: Request) -> Answer:
    """The method, the path and the body, or the error of a request that has none."""
    if request.path == "/unread":
        return Answer(200, b"unread")
    if request.path == "/refused":
        return Answer(503, b"refused")
    if request.path == "/bug":
        raise KeyError("secret")
    if request.path == "/long":
        return Answer(200, LONG)
    parts = [f"{request.method} {request.path} {request.query} ".encode()]
    try:
        if not request.method and request.error:
            raise request.error
        while part := await request.chunk():
            parts.append(part)
    except ServingError as exc:
        return Answer(exc.status, f"{exc.code} {exc}".encode())
    return Answer(200, b"".join(parts), "text/plain")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    monkeypatch.setattr(http, "PATIENCE", 0.5)
    monkeypatch.setattr(http, "WRITE_SECONDS", 0.5)
    made = Listening(lambda request: told(request) or echo(request), keep_alive=1.0)
    made.loop = loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(
        loop.create_server(lambda: Connection(made, loop), "127.0.0.1", 0)
    )
    made.port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield made
    for connection in list(made.connections):
        loop.call_soon_threadsafe(connection._transport.abort)
    until(lambda: not made.connections)
    loop.call_soon_threadsafe(listening.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def connect(server: Listening) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def rest(client: socket.socket) -> str:
    """Everything that comes back until the server closes."""
    got = b""
    while part := client.recv(65536):
        got += part
    return got.decode("latin-1")


def one(client: socket.socket) -> tuple[int, bytes]:
    """The next answer on a connection, and no byte after it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += (byte := client.recv(1))
        assert byte, head
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return int(head.split()[1]), body


def exchange(server: Listening, *sent: bytes) -> str:
    """Everything that comes back until the server closes."""
    with connect(server) as client:
        for part in sent:
            client.sendall(part)
        return rest(client)


def bodies(got: str) -> list[str]:
    """The bodies of answers that were all good."""
    found = []
    while got:
        head, _, rest = got.partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK\r\n"), got
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        found.append(rest[:length])
        got = rest[length:]
    return found


CLOSE = b"Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([b"GET /a?b=%20 HTTP/1.1\r\nHost: h\r\n" + CLOSE], ["GET /a b=%20 "]),
        ([b"GET /%C3%A9 HTTP/1.1\r\nHost: h\r\n" + CLOSE], ["GET /é  "]),
        ([b"GET http://a:1/b?c HTTP/1.1\r\nHost: h\r\n" + CLOSE], ["GET /b c "]),
        ([b"GET http://a?c HTTP/1.1\r\nHost: h\r\n" + CLOSE], ["GET / c "]),
        ([b"OPTIONS * HTTP/1.1\r\nHost: h\r\n" + CLOSE], ["OPTIONS *  "]),
        ([b"GET /a HTTP/1.0\r\n\r\n"], ["GET /a  "]),
        (
            [b"P", b"UT /a HT", b"TP/1.1\r\nHost: h\r\nCont", b"ent-Length: 2\r\n" + CLOSE, b"hi"],
            ["PUT /a  hi"],
        ),
        (
            [
                b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n" + CLOSE,
                b"2\r\nhi\r\n",
                b"0\r\n\r\n",
            ],
            ["POST /  hi"],
        ),
        (
            [b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n" + CLOSE],
            ["GET /1  ", "GET /2  "],
        ),
        (
            [
                b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n"
                b"xGET /2 HTTP/1.1\r\nHost: h\r\n" + CLOSE
            ],
            ["POST /1  x", "GET /2  "],
        ),
        (
            [b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"],
            ["GET /  "],
        ),
        (
            [b"GET / HTTP/1.0\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"],
            ["GET /  "],
        ),
        (
            [
                b"POST /1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                b"Upgrade: h2c\r\nContent-Length: 2\r\n\r\nh",
                b"iGET /2 HTTP/1.1\r\nHost: h\r\n" + CLOSE,
            ],
            ["POST /1  hi", "GET /2  "],
        ),
        (
            [b"CONNECT a:1 HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"],
            ["CONNECT a:1  "],
        ),
    ],
    ids=str,
)
def test_requests_are_answered_in_their_order(
    server: Listening, sent: list[bytes], expected: list[str]
) -> None:
    got = bodies(exchange(server, *sent))
    assert [each.encode("latin-1").decode() for each in got] == expected


def test_a_head_has_no_body(server: Listening) -> None:
    got = exchange(server, b"HEAD /a HTTP/1.1\r\nHost: h\r\n" + CLOSE)
    assert got.endswith("\r\n\r\n")
    assert "Content-Length: 9\r\n" in got


def test_who_waits_to_be_told_is_told_to_go_on(server: Listening) -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" + CLOSE
    with connect(server) as client:
        client.sendall(head)
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hi")
        assert client.recv(1000).endswith(b"POST /  hi")


def test_who_speaks_http_1_0_is_not_told_to_go_on(server: Listening) -> None:
    head = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert bodies(exchange(server, head, b"hi")) == ["POST /  hi"]


def test_a_large_body_is_read_whole(server: Listening) -> None:
    body = bytes(range(256)) * 20_000
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n" % len(body) + CLOSE
    assert bodies(exchange(server, head, body))[0].encode("latin-1") == b"POST /  " + body


HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"GARBAGE\r\n\r\n", "400 bad_request The request is not HTTP/1.1: Invalid method"),
        (
            b"GET / HTTP/1.1\r\nHost: h\r\nA: " + LONG,
            "431 header_too_large The header has more than 32768",
        ),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: x\r\n" * 101 + b"\r\n", "431 header_too_large"),
        (b"GET /" + LONG, "414 target_too_long The target has more than 32768 bytes."),
        (HEAD + b"Content-Length: x\r\n\r\n", "400 bad_request"),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400 bad_request"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", "400 bad_request"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + LONG, "431 header_too_large"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + LONG, "431 header_too_large"),
        (b"GET / HTTP/9.9\r\n\r\n", "400 bad_request The request is not HTTP/1.1: Invalid HTTP v"),
        (b"GET /\r\n\r\n", "400 bad_request The request is of HTTP/0.9. Expected 1.1 or 1.0."),
        (b"GET / HTTP/1.1\r\n\r\n", "400 bad_request The header names no host, or several."),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400 bad_request The header names"),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400 bad_request The header names no host"),
        (
            HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "400 bad_request The body is transferred in an unknown coding. Expected 'chunked'.",
        ),
    ],
    ids=lambda value: value[-40:] if isinstance(value, bytes) else "",
)
def test_what_is_malformed_is_told_in_its_turn(server: Listening, sent: bytes, told: str) -> None:
    status, _, message = told.partition(" ")
    for before in (b"", b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"):
        with connect(server) as client:
            client.sendall(before + sent)
            if before:
                assert one(client) == (200, b"POST /1  x")
            got = rest(client)
        assert got.startswith(f"HTTP/1.1 {status} ")
        assert "Connection: close" in got
        assert message in got


def test_what_is_malformed_in_a_body_is_told_though_it_comes_later(server: Listening) -> None:
    with connect(server) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        until(lambda: server.at_work)
        client.sendall(b"x\r\n")
        assert one(client)[0] == 400
        assert rest(client) == ""


def test_fields_after_a_body_are_not_of_its_header(server: Listening) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Type: a\r\n\r\n"
    seen = []

    async def respond(request: Request) -> Answer:
        await request.chunk()
        seen.append(request.headers)
        return Answer(200, b"")

    server.respond = respond
    with connect(server) as client:
        client.sendall(chunked)
        assert one(client)[0] == 200
    assert seen == [{"host": "h", "transfer-encoding": "chunked"}]


def test_header_fields_of_one_name_are_joined(server: Listening) -> None:
    async def respond(request: Request) -> Answer:
        return Answer(200, request.headers["a"].encode())

    server.respond = respond
    got = exchange(server, b"GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\na: 2\r\n" + CLOSE)
    assert bodies(got) == ["1, 2"]


def test_a_bug_is_told_without_its_details_and_ends_the_connection(
    server: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        got = exchange(server, b"GET /bug HTTP/1.1\r\nHost: h\r\n\r\n")
    assert got.startswith("HTTP/1.1 500 ")
    assert '{"error":{"code":"internal_error"' in got
    assert "secret" not in got
    assert "secret" in caplog.text


# a body that nobody reads


def test_a_refusal_does_not_wait_for_the_body_and_keeps_the_connection(server: Listening) -> None:
    with connect(server) as client:
        for _ in range(3):
            client.sendall(b"POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n")
            assert one(client) == (503, b"refused")
            client.sendall(bytes(900_000))
        client.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        assert one(client) == (200, b"GET /a  ")


def test_what_was_answered_is_not_answered_again_when_its_body_breaks(server: Listening) -> None:
    with connect(server) as client:
        client.sendall(b"POST /refused HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert one(client) == (503, b"refused")
        client.sendall(b"x\r\n")
        assert rest(client) == ""


def test_a_body_that_nobody_reads_must_come_in_time(server: Listening) -> None:
    sent = b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"
    assert bodies(exchange(server, sent)) == ["unread"]


def test_the_last_answer_is_read_though_the_body_is_not(server: Listening) -> None:
    head = b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n" + CLOSE
    assert bodies(exchange(server, head, bytes(9_000_000))) == ["unread"]


def test_who_waits_for_leave_to_send_is_not_given_it_for_a_refusal(server: Listening) -> None:
    head = b"POST /refused HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    got = exchange(server, head)
    assert got.startswith("HTTP/1.1 503 ")
    assert "Connection: close" in got


# who sends no more


def test_who_has_ended_sending_gets_the_answers(server: Listening) -> None:
    with connect(server) as client:
        client.sendall(
            b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3"
        )
        client.shutdown(socket.SHUT_WR)
        assert bodies(rest(client)) == ["GET /1  ", "GET /2  "]


def test_a_body_that_is_cut_short_is_told(server: Listening) -> None:
    with connect(server) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
        until(lambda: server.at_work)
        client.shutdown(socket.SHUT_WR)
        assert one(client) == (400, b"bad_request The body ended before it was complete.")
        assert rest(client) == ""


def test_a_body_behind_another_request_is_held_back() -> None:
    """In chunks of two bytes, each of which could cost an object."""
    parser = Parser(lambda _: None)
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    parser.feed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" + head + b"2\r\nhi\r\n" * 10_000)
    assert parser.full
    assert sum(each.buffered for each in parser.ready) < STEP
    parser.ready.popleft()
    parser.go_on()
    assert parser.ready[0].buffered == 20_000


# who takes no answers


def test_answers_that_nobody_takes_do_not_pile_up(server: Listening) -> None:
    most = 0

    async def respond(_: Request) -> Answer:
        nonlocal most
        (connection,) = server.connections
        most = max(most, connection._transport.get_write_buffer_size())
        return Answer(200, LONG)

    server.respond = respond
    with connect(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 10_000)
        until(lambda: server.connections)
        until(lambda: not server.connections)
    assert most < 2 * len(LONG)


def test_an_answer_that_nobody_takes_holds_no_connection_that_ends(server: Listening) -> None:
    async def respond(_: Request) -> Answer:
        return Answer(200, bytes(50_000_000))

    server.respond = respond
    with connect(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n" + CLOSE)
        until(lambda: server.connections)
        until(lambda: not server.connections)


def test_a_long_answer_is_taken_whole(server: Listening) -> None:
    with connect(server) as client:
        client.sendall(b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n" * 200)
        for _ in range(200):
            assert one(client) == (200, LONG)


# turns


def test_a_connection_that_pipelines_leaves_others_their_turn(server: Listening) -> None:
    answered, waiting, seen = 0, 0, []

    with connect(server) as client, connect(server) as other:
        until(lambda: len(server.connections) == 2)

        async def respond(request: Request) -> Answer:
            nonlocal answered, waiting
            if request.path == "/other":
                seen.append(answered)
            elif not answered:
                other.sendall(b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n")
            answered += 1
            waiting = max(waiting, *(len(each._ready) for each in server.connections))
            return Answer(200, b"")

        server.respond = respond
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 12_000 + b"GET / HTTP/1.1\r\nHost: h\r\n" + CLOSE
        )
        assert rest(client).count("HTTP/1.1 200 OK") == 12_001
    assert seen[0] < 10
    assert waiting < 1000  # of 12,000: what one step may bring


# who idles, or sends half of something


def test_who_sends_nothing_is_let_go(server: Listening) -> None:
    assert exchange(server) == ""


def test_a_kept_connection_is_let_go_when_it_idles(server: Listening) -> None:
    assert bodies(exchange(server, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")) == ["GET /  "]


@pytest.mark.parametrize("half", [b"G", b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n"])
@pytest.mark.parametrize("before", [b"", b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"])
def test_half_a_header_is_not_waited_for_as_long(
    server: Listening, before: bytes, half: bytes
) -> None:
    server.keep_alive = 3600.0
    assert bodies(exchange(server, before + half)) == ["GET /1  "][: len(before)]


@pytest.mark.parametrize("sent", [b"GET /" + b"x" * 600, b"\r\n" * 300], ids=["path", "lines"])
def test_a_header_has_its_time_however_its_bytes_drip(server: Listening, sent: bytes) -> None:
    server.keep_alive = 3600.0
    with connect(server) as client, contextlib.suppress(OSError):
        for byte in sent:
            client.sendall(bytes([byte]))
            time.sleep(0.1)
        pytest.fail("It is still there.")


def test_whoever_waits_for_no_answer_is_idle(server: Listening) -> None:
    go_on = asyncio.Event()

    async def respond(_: Request) -> Answer:
        await go_on.wait()
        return Answer(200, b"")

    server.respond = respond
    with connect(server) as client:
        until(lambda: server.connections)
        (connection,) = server.connections
        assert connection.idle
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nG")
        until(lambda: not connection.idle)
        server.loop.call_soon_threadsafe(go_on.set)
        assert one(client)[0] == 200
        until(lambda: connection.idle)


def test_a_client_that_leaves_in_the_middle_is_forgotten(server: Listening) -> None:
    with connect(server) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
    bodies(exchange(server, b"GET / HTTP/1.1\r\nHost: h\r\n" + CLOSE))
    until(lambda: not server.connections and not server.at_work)


NOW = b"GET /now HTTP/1.1\r\nHost: h\r\n\r\n"


def test_a_connection_that_is_in_use_outlives_the_time_to_idle(server: Listening) -> None:
    with connect(server) as client:
        for _ in range(8):  # 2 s in all, and 1 s is the time to idle
            client.sendall(NOW)
            assert one(client) == (200, b"now")
            time.sleep(0.25)
        began = time.monotonic()
        assert client.recv(1) == b""  # it idled
        assert 0.4 < time.monotonic() - began < 5


def test_half_a_header_behind_an_answer_has_its_time_from_then(server: Listening) -> None:
    with connect(server) as client:
        client.sendall(NOW[:10])
        for _ in range(8):  # 2 s in all, and 0.5 s is the time for a header
            client.sendall(NOW[10:] + NOW[:10])
            assert one(client) == (200, b"now")
            time.sleep(0.25)
        assert client.recv(1) == b""
