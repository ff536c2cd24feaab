"""What stands before Flask: what is counted and logged there, and what waits for Flask."""

import json
import logging
import socket
import struct
import threading
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack
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
    """What is logged of each request."""
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
        (b"GARBAGE\r\n\r\n", "400", "bad_request"),
        (b"GET /" + b"x" * 100_000, "414", "target_too_long"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000, "431", "header_too_large"),
    ],
    ids=["garbage", "target", "header"],
)
def test_what_is_malformed_is_counted_and_logged_as_any_request(
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


def test_where_no_place_is_left_a_request_is_refused_at_once(
    app: Flask, front: Client, lines: list[Mapping[str, object]]
) -> None:
    admission = app.extensions[SERVICE].pipeline.admission
    with ExitStack() as places:
        for _ in range(admission.max_requests):
            places.enter_context(admission.request(0))
        with front.connect() as client:
            client.sendall(HEAD + bytes(999) + b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            until(lambda: len(lines) == 1)
            client.sendall(HEAD)  # what is refused before its body came drops that
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
    respond, waited = front.server.respond, list[bool]()

    def watched(request: Request) -> Answer | Coroutine[Any, Any, Answer]:
        answer = respond(request)
        waited.append(isinstance(answer, Coroutine))
        return answer

    front.server.respond = watched
    assert front.get(path).status_code == 200
    assert front.get("/models/shade").status_code == 200
    assert front.get("/v2/models/none").status_code == 404
    assert waited == [False, True, False]


def test_who_leaves_is_counted_and_logged(front: Client, lines: list[Mapping[str, object]]) -> None:
    with front.connect() as client:
        client.sendall(HEAD)
        until(lambda: front.server.at_work)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    until(lambda: not front.server.at_work)
    assert [line["status"] for line in lines] == [499]
    assert counted(front, route="/predict/<name>", status="499") == 1


def test_a_request_is_not_told_to_send_a_body_that_is_refused(front: Client) -> None:
    head = HEAD.replace(b"999\r\n", b"50000000\r\nExpect: 100-continue\r\n")
    for sent in (head, head.replace(b"/predict/shade", b"/nothing")):
        with front.connect() as client:
            client.sendall(sent)
            assert rest(client).startswith(("HTTP/1.1 413 ", "HTTP/1.1 404 "))


def test_what_waits_for_flask_is_bounded(models: Path) -> None:
    app, go_on = create_app(Settings(models=models, threads=1)), threading.Event()

    @app.before_request
    def wait() -> None:
        go_on.wait(600)

    front = Client(app)
    with ExitStack() as held:
        clients = [held.enter_context(front.connect()) for _ in range(PER_THREAD)]
        for client in clients:
            client.sendall(b"GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        until(lambda: front.server.at_work == PER_THREAD)
        refused = front.get("/none")
        assert_error(refused, 503, "overloaded")
        assert refused.headers["Retry-After"] == "1"
        for probe in (front.get("/healthz"), front.head("/healthz")):
            assert probe.status_code == 200
        go_on.set()
        assert all(rest(client).startswith("HTTP/1.1 404 ") for client in clients)
    assert front.get("/none").status_code == 404


def test_metrics_wait_for_no_database_that_hangs(
    front: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, hanging = threading.Event(), list[int]()

    def hang(*_: object) -> list[Label]:
        hanging.append(1)
        assert go_on.wait(60)
        return []

    monkeypatch.setattr(Database, "newest", hang)
    asking = [threading.Thread(target=front.get, args=("/models/shade/quality",)) for _ in range(8)]
    for each in asking:
        each.start()
    until(lambda: len(hanging) == Settings().threads)
    assert "convserve_requests_total" in front.get("/metrics").text
    go_on.set()
    for each in asking:
        each.join()
