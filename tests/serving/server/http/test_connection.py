"""Bytes on a socket: what a client may send, and what it receives."""

import asyncio
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving.server.http.connection import READ_SECONDS, Connection
from serving.server.http.message import Request
from tests.serving.server.http.engine import FAILURE, LONG, Answer, Engine, bodies, one, rest
from tests.serving.waiting import until

CLOSE = b"Connection: close\r\n\r\n"
NOW = b"GET /now HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([b"GET /a?b=%20 HTTP/1.1\r\nHost: h\r\n" + CLOSE], ["GET /a b=%20 "]),
        ([b"GET /%C3%A9 HTTP/1.1\r\nHost: h\r\n" + CLOSE], ["GET /é  "]),
        ([b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"], ["GET /  "]),
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
            [b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n"],
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
    ids=[
        *(
            "query",
            "percent-encoded path",
            "keep-alive and close",
            "absolute target",
            "absolute target without a path",
        ),
        *("asterisk", "HTTP/1.0", "header in parts", "chunked", "pipelined", "pipelined body"),
        *("upgrade", "upgrade in HTTP/1.0", "upgrade with a body", "CONNECT"),
    ],
)
def test_requests_are_answered_in_order(
    engine: Engine, sent: list[bytes], expected: list[str]
) -> None:
    got = bodies(engine.exchange(*sent))
    assert [each.encode("latin-1").decode() for each in got] == expected


def test_the_answer_to_head_has_no_body(engine: Engine) -> None:
    got = engine.exchange(b"HEAD /a HTTP/1.1\r\nHost: h\r\n" + CLOSE)
    assert got.endswith("\r\n\r\n")
    assert "Content-Length: 9\r\n" in got


def test_the_answer_to_a_malformed_head_request_has_no_body(engine: Engine) -> None:
    got = engine.exchange(b"HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n")
    assert got.startswith("HTTP/1.1 400 ")
    assert got.endswith("\r\n\r\n")


def test_100_continue_is_sent_when_the_body_is_read(
    engine: Engine,
) -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" + CLOSE
    with engine.connect() as client:
        client.sendall(head)
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hi")
        assert client.recv(1000).endswith(b"POST /  hi")


def test_an_http_1_0_client_never_receives_100_continue(engine: Engine) -> None:
    head = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    assert bodies(engine.exchange(head, b"hi")) == ["POST /  hi"]


def test_a_large_body_is_read_completely(engine: Engine) -> None:
    body = bytes(range(256)) * 20_000
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n" % len(body) + CLOSE
    assert bodies(engine.exchange(head, body))[0].encode("latin-1") == b"POST /  " + body


HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"\x16\x03\x01\r\n\r\n", "400 bad_request The request is not HTTP/1.1: Invalid method"),
        (b"GARBAGE\r\n\r\n", "501 unimplemented The method is unknown. Known methods: CONNECT, "),
        (b"SOURCE / ICE/1.0\r\n\r\n", "501 unimplemented The method is unknown."),
        (b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", "400 bad_request The target is malformed."),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "400 bad_request Transfer-"),
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
        (b"GET /\r\n\r\n", "400 bad_request HTTP/0.9 is not supported."),
        (
            b"GET / HTTP/1.1\r\n\r\n",
            "400 bad_request The Host field is missing,",
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400 bad_request The Host field"),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400 bad_request The Host field"),
        (
            HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "501 unimplemented The transfer coding 'gzip' is unknown. Expected 'chunked'.",
        ),
    ],
)
def test_a_malformed_request_is_answered_in_its_turn_and_ends_the_connection(
    engine: Engine, sent: bytes, expected: str
) -> None:
    status, _, message = expected.partition(" ")
    for before in (b"", b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"):
        with engine.connect() as client:
            client.sendall(before + sent)
            if before:
                assert one(client) == (200, b"POST /1  x")
            got = rest(client)
        assert got.startswith(f"HTTP/1.1 {status} ")
        assert "Connection: close" in got
        assert message in got


def test_a_malformed_chunk_fails_a_request_that_is_being_read(engine: Engine) -> None:
    with engine.connect() as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        until(lambda: engine.in_progress)
        client.sendall(b"x\r\n")
        assert one(client)[0] == 400
        assert rest(client) == ""


def test_trailer_fields_do_not_change_the_header(engine: Engine) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Type: a\r\n\r\n"
    seen = []

    async def respond(request: Request) -> Answer:
        await request.chunk()
        seen.append(request.headers)
        return Answer(200, b"")

    engine.respond = respond
    with engine.connect() as client:
        client.sendall(chunked)
        assert one(client)[0] == 200
    assert seen == [{"host": "h", "transfer-encoding": "chunked"}]


def test_fields_of_one_name_are_joined(engine: Engine) -> None:
    async def respond(request: Request) -> Answer:
        return Answer(200, request.headers["a"].encode())

    engine.respond = respond
    got = engine.exchange(b"GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\na: 2\r\n" + CLOSE)
    assert bodies(got) == ["1, 2"]


def test_a_handler_that_raises_is_logged_and_ends_the_connection(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        got = engine.exchange(b"GET /bug HTTP/1.1\r\nHost: h\r\n\r\n")
    assert got.startswith("HTTP/1.1 500 ")
    assert got.endswith(FAILURE.body.decode())
    assert "secret" not in got
    assert "secret" in caplog.text


# unread bodies


def test_a_refusal_does_not_wait_for_the_body_and_keeps_the_connection(engine: Engine) -> None:
    with engine.connect() as client:
        for _ in range(3):
            client.sendall(b"POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n")
            assert one(client) == (503, b"refused")
            client.sendall(bytes(900_000))
        client.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        assert one(client) == (200, b"GET /a  ")


def test_an_answered_request_gets_no_second_answer_for_a_malformed_body(
    impatient: Engine,
) -> None:
    with impatient.connect() as client:
        client.sendall(b"POST /refused HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert one(client) == (503, b"refused")
        client.sendall(b"x\r\n")
        assert rest(client) == ""


BAD_ENDS = {
    "chunk": b"x\r\n",
    "trailer": b"0\r\nConnection: close\r\n\r\n",
    "long trailer": b"0\r\nA: " + LONG,
    "framing in a trailer": b"0\r\nContent-Length: 1\r\n\r\n",
}


@pytest.mark.parametrize("path", [b"/unread", b"/unread-now"])
@pytest.mark.parametrize("end", BAD_ENDS.values(), ids=BAD_ENDS)
def test_no_connection_is_deaf_after_an_early_answer(
    engine: Engine, end: bytes, path: bytes
) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    with engine.connect() as client:
        client.sendall(head)
        assert one(client) == (200, b"unread")
        client.sendall(end + NOW)
        assert rest(client) == ""
        assert engine.connections  # half-closed at once, not timed out


@pytest.mark.parametrize("length", [0, 300_000])
def test_no_connection_is_deaf_if_a_body_was_malformed_before_its_early_answer(
    engine: Engine, length: int
) -> None:
    """With a long body the parser is full, and fails after the answer."""
    head = b"POST /unread HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n" % length + bytes(length) + b"\r\n" if length else b""
    with engine.connect() as client:
        client.sendall(head + body + b"x\r\n" + NOW)
        assert one(client) == (200, b"unread")
        assert rest(client) == ""
        assert engine.connections


@pytest.mark.parametrize("early", [False, True])
def test_a_trailer_that_closes_ends_the_connection_before_the_next_request(
    engine: Engine, early: bool
) -> None:
    """A proxy would give a stranger's request to a connection that is not closed."""
    head = b"POST /unread" if early else b"POST /"
    head += b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    with engine.connect() as client:
        client.sendall(head + b"0\r\nConnection: close\r\n\r\n" + NOW)
        got = rest(client)
    assert len(bodies(got)) == 1
    assert "Connection: close" in got


def test_a_harmless_trailer_leaves_the_connection_open(engine: Engine) -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    with engine.connect() as client:
        for trailer in (b"X: y", b"Connection: keep-alive", b"Host: x"):
            client.sendall(head + b"0\r\n" + trailer + b"\r\n\r\n")
            assert one(client) == (200, b"POST /  ")
            client.sendall(NOW)
            assert one(client) == (200, b"now")


def test_an_unread_body_must_arrive_in_time(impatient: Engine) -> None:
    sent = b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"
    assert bodies(impatient.exchange(sent)) == ["unread"]


def test_a_lingering_close_delivers_the_last_answer_to_a_client_that_sends(
    engine: Engine,
) -> None:
    head = b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n" + CLOSE
    assert bodies(engine.exchange(head, bytes(9_000_000))) == ["unread"]


def test_a_refused_request_never_receives_100_continue(engine: Engine) -> None:
    head = b"POST /refused HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    got = engine.exchange(head)
    assert got.startswith("HTTP/1.1 503 ")
    assert "Connection: close" in got


# half-close


def test_a_client_that_half_closes_receives_its_answers(engine: Engine) -> None:
    with engine.connect() as client:
        client.sendall(
            b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3"
        )
        client.shutdown(socket.SHUT_WR)
        assert bodies(rest(client)) == ["GET /1  ", "GET /2  "]


def test_a_body_that_is_cut_short_is_a_bad_request(engine: Engine) -> None:
    with engine.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
        until(lambda: engine.in_progress)
        client.shutdown(socket.SHUT_WR)
        assert one(client) == (400, b"bad_request The body ended before it was complete.")
        assert rest(client) == ""


# clients that do not read


def test_answers_that_a_client_does_not_read_are_bounded(impatient: Engine) -> None:
    most = 0

    async def respond(_: Request) -> Answer:
        nonlocal most
        (connection,) = impatient.connections
        assert isinstance(connection, Connection)
        most = max(most, connection._transport.get_write_buffer_size())
        return Answer(200, LONG)

    impatient.respond = respond
    with impatient.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 10_000)
        until(lambda: impatient.connections)
        until(lambda: not impatient.connections)
    assert most < 2 * len(LONG)


def test_a_close_does_not_wait_forever_for_a_client_that_does_not_read(impatient: Engine) -> None:
    async def respond(_: Request) -> Answer:
        return Answer(200, bytes(50_000_000))

    impatient.respond = respond
    with impatient.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n" + CLOSE)
        until(lambda: impatient.connections)
        until(lambda: not impatient.connections)


def test_long_answers_arrive_completely(engine: Engine) -> None:
    with engine.connect() as client:
        client.sendall(b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n" * 200)
        for _ in range(200):
            assert one(client) == (200, LONG)


# fairness


def pipelined(connection: object) -> int:
    assert isinstance(connection, Connection)
    return len(connection._ready)


def test_a_pipelining_client_does_not_starve_others(engine: Engine) -> None:
    answered, waiting, seen = 0, 0, []

    with engine.connect() as client, engine.connect() as other:
        until(lambda: len(engine.connections) == 2)

        async def respond(request: Request) -> Answer:
            nonlocal answered, waiting
            if request.path == "/other":
                seen.append(answered)
            elif not answered:
                other.sendall(b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n")
            answered += 1
            waiting = max(waiting, *map(pipelined, engine.connections))
            return Answer(200, b"")

        engine.respond = respond
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 12_000 + b"GET / HTTP/1.1\r\nHost: h\r\n" + CLOSE
        )
        assert rest(client).count("HTTP/1.1 200 OK") == 12_001
    assert seen[0] < 10
    assert waiting < 1000  # of 12,000: those of one step


# timeouts


def test_a_silent_client_is_disconnected(impatient: Engine) -> None:
    assert impatient.exchange() == ""


def test_an_idle_connection_is_closed_after_the_keep_alive_timeout(impatient: Engine) -> None:
    assert bodies(impatient.exchange(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")) == ["GET /  "]


@pytest.mark.parametrize("half", [b"G", b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n"])
@pytest.mark.parametrize("before", [b"", b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"])
def test_half_a_header_has_less_time_than_an_idle_connection(
    impatient: Engine, before: bytes, half: bytes
) -> None:
    impatient.keep_alive = 3600.0
    assert bodies(impatient.exchange(before + half)) == ["GET /1  "][: len(before)]


@pytest.mark.parametrize("sent", [b"GET /xxx", b"\r\n" * 4], ids=["path", "lines"])
def test_a_header_that_drips_has_no_more_time(engine: Engine, sent: bytes) -> None:
    with engine.connect() as client:
        until(lambda: engine.connections)
        (connection,) = engine.connections
        assert isinstance(connection, Connection)
        closes_at, parser = connection.closes_at, connection._parser
        for count, byte in enumerate(sent, 1):
            client.sendall(bytes([byte]))
            until(lambda count=count: parser._framing == count)  # type: ignore[misc]
        assert connection.closes_at == closes_at


def test_a_connection_without_a_request_is_idle(engine: Engine) -> None:
    proceed = asyncio.Event()

    async def respond(_: Request) -> Answer:
        await proceed.wait()
        return Answer(200, b"")

    engine.respond = respond
    with engine.connect() as client:
        until(lambda: engine.connections)
        (connection,) = engine.connections
        assert connection.idle
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nG")
        until(lambda: not connection.idle)
        engine.loop.call_soon_threadsafe(proceed.set)
        assert one(client)[0] == 200
        until(lambda: connection.idle)


def test_a_client_that_disconnects_in_a_body_leaves_nothing_behind(engine: Engine) -> None:
    with engine.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
    bodies(engine.exchange(b"GET / HTTP/1.1\r\nHost: h\r\n" + CLOSE))
    until(lambda: not engine.connections and not engine.in_progress)


@pytest.mark.parametrize(
    ("behind", "seconds"), [(b"", 60.0), (NOW[:10], READ_SECONDS)], ids=["idle", "half a header"]
)
def test_each_answer_restarts_the_clock(engine: Engine, behind: bytes, seconds: float) -> None:
    with engine.connect() as client:
        client.sendall(behind)
        until(lambda: engine.connections)
        (connection,) = engine.connections
        limits = [0.0]

        def restarted() -> bool:
            left = connection.closes_at - engine.loop.time()
            return connection.closes_at > limits[-1] and seconds / 2 < left <= seconds

        for _ in range(3):
            client.sendall(NOW.removeprefix(behind) + behind)
            assert one(client) == (200, b"now")
            until(restarted)
            limits.append(connection.closes_at)


def test_the_engine_needs_nothing_of_the_service_but_its_errors() -> None:
    program = "import sys, serving.server.http.connection; print(*sys.modules)"
    root, command = Path(__file__).parents[4], [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, cwd=root, text=True, check=True)
    loaded = ran.stdout.split()
    ours = [name for name in loaded if name.startswith("serving") and ".server" not in name]
    assert ours == ["serving", "serving.errors"]
    assert not {"flask", "gunicorn", "numpy", "onnxruntime", "werkzeug"} & set(loaded)
