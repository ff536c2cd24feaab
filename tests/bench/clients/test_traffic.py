import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bench.clients import bodies
from bench.clients.bad_clients import KINDS, BadClients
from bench.clients.probes import Probe
from bench.clients.traffic import (
    PNG,
    Call,
    Client,
    Outcome,
    blameless,
    mixture,
    recent,
    stopped,
    wrong,
)
from bench.rig.kill import Kill
from bench.rig.service import Server, until

SEVEN = Call("/predict/digits", b"7", PNG)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/fine" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield Server(None, listening.server_port, None)  # type: ignore[arg-type]
        listening.shutdown()
        thread.join()


def test_a_client_keeps_its_connection_and_records_each_answer(server: Server) -> None:
    calls = [Call(path, method="GET", expected=404) for path in ("/fine", "/wrong", "/wrong")]
    client = Client(server, calls)
    new = recent([client])
    client.start()
    client.join()
    assert [each.status for each in next(new)] == [200, 404, 404]
    assert next(new) == []
    assert [each.kept for each in stopped([client])] == [False, True, True]
    assert len({each.port for each in client.outcomes}) == 1


def test_a_probe_opens_a_new_connection_each_time(server: Server) -> None:
    probe = Probe(server, "/fine", period=0.001)
    probe.start()
    until(lambda: len(probe.outcomes) >= 3, 10, "The probe does not ask.")
    outcomes = stopped([probe])
    assert len({each.port for each in outcomes}) == len(outcomes)
    assert probe.failed == 0
    assert 0 < probe.at(0.5) <= probe.at(1)


def broke(at: float, port: int) -> Outcome:
    return Outcome(SEVEN, at, 0.1, 0, "reset", port)


@pytest.mark.parametrize(
    ("outcome", "fine"),
    [
        pytest.param(broke(10.0, 1), True, id="the killed worker's"),
        pytest.param(broke(10.0, 3), True, id="opened in the moment of the kill"),
        pytest.param(broke(10.0, 2), False, id="another worker's"),
        pytest.param(broke(20.0, 1), False, id="long after"),
    ],
)
def test_only_requests_in_the_killed_worker_may_break(outcome: Outcome, fine: bool) -> None:
    assert blameless(outcome, [Kill(10.05, 77, {1: 77, 2: 78})]) is fine


@pytest.mark.parametrize(
    ("status", "code", "kept"),
    [
        (200, "", True),
        (503, "overloaded", True),
        (504, "deadline_exceeded", True),
        (408, "body_too_slow", True),
        (503, "not an error of the documented shape: b''", False),
        (500, "internal_error", False),
        (400, "invalid_image", False),
        (0, "reset", False),
    ],
)
def test_an_answer_is_as_promised_or_a_refusal_with_its_reason(
    status: int, code: str, kept: bool
) -> None:
    assert Outcome(SEVEN, 0.0, 0.1, status, code, 1).kept is kept


def test_the_mixture_holds_every_model_and_every_refusal() -> None:
    calls = mixture()
    assert {call.expected for call in wrong()} <= {call.expected for call in calls}
    for name in bodies.NAMES:
        assert any(call.path == f"/predict/{name}" for call in calls)


def test_bad_clients_connect_again_and_leave_at_once(server: Server) -> None:
    bad = BadClients(server.port, dict.fromkeys(KINDS, 1))
    bad.start()
    until(lambda: len(bad.ended) > 3, 30, "No connection has ended.")
    bad.stop()
    assert not bad.is_alive()
