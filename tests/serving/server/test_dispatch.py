"""The dispatcher: what it counts and logs, answers synchronously, and leaves to Flask."""

import json
import logging
import socket
import struct
import threading
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from serving.api import exchange
from serving.api.routes import PER_THREAD
from serving.app import SERVICE, create_app
from serving.feedback.database import Database
from serving.feedback.labels import Label
from serving.monitoring import json_log
from serving.server.http import connection
from serving.server.http.message import Answer, Request
from serving.settings import Settings
from tests.serving.front import Client
from tests.serving.monitoring.test_metrics import value
from tests.serving.samples import assert_error
from tests.serving.waiting import until

HEAD = (
    b"POST /predict/shade HTTP/1.1\r\nHost: h\r\n"
    b"Content-Type: image/png\r\nContent-Length: 999\r\n\r\n"
)


@pytest.fixture
def front(app: Flask) -> Client:
    return Client(app)


@pytest.fixture
def lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> list[Mapping[str, object]]:
    """Return the fields logged for each request."""
    found: list[Mapping[str, object]] = []
    monkeypatch.setattr(json_log, "write", lambda _, fields: found.append(fields))
    caplog.set_level(logging.INFO, exchange.logger.name)
    return found


def counted(front: Client, **labels: str) -> float:
    return value(front.get("/metrics").text, "convserve_requests_total", **labels)


def rest(client: socket.socket) -> str:
    got = b""
    while part := client.recv(65536):
        got += part
    return got.decode()


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GARBAGE\r\n\r\n", "501", "unimplemented"),
        (b"\x16\x03\x01", "400", "bad_request"),
        (b"GET /" + b"x" * 100_000, "414", "target_too_long"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000, "431", "header_too_large"),
    ],
    ids=["garbage", "TLS", "target", "header"],
)
def test_a_malformed_request_is_counted_and_logged(
    front: Client, lines: list[Mapping[str, object]], sent: bytes, status: str, code: str
) -> None:
    with front.connect() as client:
        client.sendall(sent)
        head, _, body = rest(client).partition("\r\n\r\n")
    assert json.loads(body)["error"]["code"] == code
    assert f"X-Request-ID: {lines[0]['request_id']}" in head
    assert lines[0]["status"] == int(status)
    page = front.get("/metrics").text
    assert value(page, "convserve_errors_total", code=code) == 1
    assert value(page, "convserve_requests_total", route="unknown", status=status) == 1
    assert value(page, "convserve_requests_in_flight") == 1  # the page itself


def test_options_of_the_whole_server_are_the_methods_of_its_routes(
    front: Client, lines: list[Mapping[str, object]]
) -> None:
    with front.connect() as client:
        client.sendall(b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        head, _, body = rest(client).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert {"Allow: GET, HEAD, OPTIONS, POST", "Content-Length: 0"} <= set(head.split("\r\n"))
    assert body == ""
    assert (lines[0]["path"], lines[0]["status"]) == ("*", 200)


def test_a_request_beyond_the_bound_is_refused_before_its_body_arrives(
    app: Flask, front: Client, lines: list[Mapping[str, object]]
) -> None:
    admission = app.extensions[SERVICE].pipeline.admission
    with ExitStack() as places:
        for _ in range(admission.max_requests):
            places.enter_context(admission.request(0))
        with front.connect() as client:
            client.sendall(HEAD + bytes(999) + b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            until(lambda: len(lines) == 1)
            client.sendall(HEAD)  # its body is discarded
            until(lambda: len(lines) == 2)
            client.sendall(
                bytes(999) + b"GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            )
            answers = rest(client).split("HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == ["503", "200", "503", "200"]
        assert "Retry-After: 1" in answers[0]
        assert "overloaded" in answers[0]
        assert_error(front.post("/predict/nothing/there", data=b"x"), 404, "unknown_path")
    assert counted(front, route="/predict/<name>", status="503") == 2
    assert value(front.get("/metrics").text, "convserve_requests_in_flight") == 1


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/v2/health/ready", "/v2/models/shade", "/v1/models/shade"]
)
def test_a_probe_is_answered_without_a_task(front: Client, path: str) -> None:
    respond, waited = front.pool.respond, list[bool]()

    def watched(request: Request) -> Answer | Coroutine[Any, Any, Answer]:
        answer = respond(request)
        waited.append(isinstance(answer, Coroutine))
        return answer

    front.pool.respond = watched
    assert front.get(path).status_code == 200
    assert front.get("/models/shade").status_code == 200
    assert front.get("/v2/models/none").status_code == 404
    assert waited == [False, True, False]


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"", b""), (HEAD[:50], b""), (HEAD, b"408")],
    ids=["silent", "half a header", "half a body"],
)
def test_silent_and_dripping_clients_are_disconnected(
    models: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes, status: bytes
) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.3)
    with Client(create_app(Settings(models=models, timeout_ms=300))).connect() as client:
        client.sendall(sent)
        client.settimeout(0.05)
        received = b""
        with suppress(ConnectionError):
            while True:
                try:
                    if not (part := client.recv(65536)):
                        break
                    received += part
                except TimeoutError:
                    client.sendall(b"x"[: len(sent)])
    assert received[9:12] == status


def test_a_client_that_disconnects_is_counted_and_logged(
    front: Client, lines: list[Mapping[str, object]]
) -> None:
    with front.connect() as client:
        client.sendall(HEAD)
        until(lambda: front.pool.in_progress)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    until(lambda: not front.pool.in_progress)
    assert [line["status"] for line in lines] == [499]
    assert counted(front, route="/predict/<name>", status="499") == 1


def test_100_continue_is_not_sent_for_a_body_that_is_refused(front: Client) -> None:
    head = HEAD.replace(b"999\r\n", b"50000000\r\nExpect: 100-continue\r\n")
    for sent in (head, head.replace(b"/predict/shade", b"/nothing")):
        with front.connect() as client:
            client.sendall(sent)
            assert rest(client).startswith(("HTTP/1.1 413 ", "HTTP/1.1 404 "))


def test_requests_that_wait_for_flask_are_bounded(models: Path) -> None:
    app, proceed = create_app(Settings(models=models, threads=1)), threading.Event()

    @app.before_request
    def wait() -> None:
        proceed.wait(600)

    front = Client(app)
    with ExitStack() as held:
        clients = [held.enter_context(front.connect()) for _ in range(PER_THREAD)]
        for client in clients:
            client.sendall(b"GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        until(lambda: front.pool.in_progress == PER_THREAD)
        refused = front.get("/none")
        assert_error(refused, 503, "overloaded")
        assert refused.headers["Retry-After"] == "1"
        for probe in (front.get("/healthz"), front.head("/healthz")):
            assert probe.status_code == 200
        proceed.set()
        assert all(rest(client).startswith("HTTP/1.1 404 ") for client in clients)
    assert front.get("/none").status_code == 404


def test_metrics_do_not_wait_for_a_database_that_hangs(
    front: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    proceed, hanging = threading.Event(), list[int]()

    def hang(*_: object) -> list[Label]:
        hanging.append(1)
        assert proceed.wait(60)
        return []

    monkeypatch.setattr(Database, "newest", hang)
    asking = [threading.Thread(target=front.get, args=("/models/shade/quality",)) for _ in range(8)]
    for each in asking:
        each.start()
    until(lambda: len(hanging) == Settings().threads)
    assert "convserve_requests_total" in front.get("/metrics").text
    proceed.set()
    for each in asking:
        each.join()
