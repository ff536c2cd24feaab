"""The real service: processes, sockets and signals."""

import contextlib
import http.client
import json
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving.monitoring.test_metrics import value
from tests.serving.running import ROOT, Running, command_line, environment, running
from tests.serving.samples import brightness_graph, multipart, png, publish

DARK = png(10)
PNG = {"Content_Type": "image/png"}


def predict(service: Running, model: str) -> int:
    return service.request("POST", f"/predict/{model}", DARK, **PNG)[0]


@pytest.fixture(scope="module")
def service(models: Path) -> Iterator[Running]:
    with running(models, workers=2) as started:
        yield started


def test_it_answers_and_echoes_the_request_id(service: Running) -> None:
    status, headers, body = service.request(
        "POST", "/predict/shade", DARK, X_Request_ID="mine", **PNG
    )
    assert (status, headers["X-Request-ID"]) == (200, "mine")
    assert json.loads(body)["predictions"][0]["label"] == "dark"


def test_one_page_counts_the_answers_of_all_workers(service: Running) -> None:
    def count() -> float:
        page = service.request("GET", "/metrics")[2].decode()
        return value(page, "convserve_images_total", model="tint")

    before = count()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: predict(service, "tint"), range(64))) == {200}
    assert count() - before == 64


def test_a_body_over_the_limit_gets_its_answer_after_all_was_sent(service: Running) -> None:
    status, _, body = service.request("POST", "/predict/shade", bytes(40_000_000), **PNG)
    assert (status, json.loads(body)["error"]["code"]) == (413, "request_too_large")


def test_a_body_for_a_wrong_path_gets_its_answer_too(service: Running) -> None:
    assert service.request("POST", "/nothing", bytes(20_000_000), **PNG)[0] == 404


def test_a_chunked_body_meets_the_same_limit(service: Running) -> None:
    connection = service.connect()
    chunks = (bytes(1_000_000) for _ in range(40))
    connection.request(
        "POST", "/predict/shade", chunks, {"Content-Type": "image/png"}, encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()


def test_a_chunked_body_is_read(service: Running) -> None:
    connection = service.connect()
    connection.request(
        "POST", "/predict/shade", iter([DARK]), {"Content-Type": "image/png"}, encode_chunked=True
    )
    assert connection.getresponse().status == 200
    connection.close()


def test_five_thousand_parts_are_refused(service: Running) -> None:
    body, kind = multipart(*[DARK] * 5000)
    assert service.request("POST", "/predict/shade", body, Content_Type=kind)[0] == 413


def test_a_connection_survives_an_error(service: Running) -> None:
    connection = service.connect()
    for expected, body in [(400, b"text"), (200, DARK), (413, bytes(40_000_000)), (200, DARK)]:
        connection.request("POST", "/predict/shade", body, {"Content-Type": "image/png"})
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (expected, True)
    connection.close()


def test_a_client_that_leaves_in_the_middle_harms_nobody(service: Running) -> None:
    for _ in range(4):
        with service.open() as client:
            client.sendall(
                b"POST /predict/shade HTTP/1.1\r\nHost: h\r\nHost: x\r\nContent-Length: 999\r\n"
            )
            client.sendall(b"Content-Type: image/png\r\n\r\nabc")
    assert service.request("POST", "/predict/shade", DARK, **PNG)[0] == 200


def test_probes_are_answered_while_the_queue_is_full(tmp_path: Path) -> None:
    publish(tmp_path, graph=brightness_graph(products=5))
    seen: list[int] = []
    enough = threading.Event()

    def post(to: Running) -> None:
        while not enough.is_set():
            seen.append(predict(to, "shade"))

    with running(tmp_path, workers=1, queue=2) as service:
        posts = [threading.Thread(target=post, args=(service,)) for _ in range(16)]
        for each in posts:
            each.start()
        probes = set()
        while not {200, 503} <= set(seen) and not enough.wait(0.01):
            probes.add(service.request("GET", "/healthz")[0])
        enough.set()
        for each in posts:
            each.join()
    assert probes == {200}
    assert set(seen) == {200, 503}


def hammer(service: Running, seen: list[int | str], stop: threading.Event) -> None:
    """One client at full speed on kept-alive connections, until the service refuses to connect."""
    connection = service.connect()
    while not stop.is_set():
        try:
            connection.connect()
        except ConnectionRefusedError:
            return
        reusable = True
        while reusable and not stop.is_set():
            try:
                connection.request("POST", "/predict/shade", DARK, {"Content-Type": "image/png"})
                response = connection.getresponse()
                reusable = not response.will_close
                seen.append(response.status if response.read() else "empty")
            except (OSError, http.client.HTTPException) as exc:
                seen.append(repr(exc))
                reusable = False
        connection.close()


@pytest.mark.parametrize("drain_seconds", [0, 1])
def test_every_accepted_request_is_answered_while_the_service_stops(
    models: Path, drain_seconds: float
) -> None:
    with running(models, workers=2, drain_seconds=drain_seconds) as service:
        seen: list[int | str] = []
        stop = threading.Event()
        clients = [threading.Thread(target=hammer, args=(service, seen, stop)) for _ in range(8)]
        for client in clients:
            client.start()
        while len(seen) < 200:
            stop.wait(0.01)
        code, output = service.terminate()
        stop.set()
        for client in clients:
            client.join()
    assert code == 0, output
    assert set(seen) == {200}


def answer_of(client: socket.socket) -> tuple[int, bytes]:
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer.status, answer.read()


def test_a_target_too_long_is_told_so(service: Running) -> None:
    with service.open() as client:
        client.sendall(b"GET /" + b"x" * 50_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        status, body = answer_of(client)
    assert (status, json.loads(body)["error"]["code"]) == (414, "target_too_long")


def closed(client: socket.socket, *, drips: bool) -> None:
    """Wait until the service closes; a byte now and then, or none."""
    client.settimeout(0.2 if drips else 60)
    with contextlib.suppress(ConnectionError):
        while True:
            try:
                if not client.recv(65536):
                    return
            except TimeoutError:
                assert drips
                client.sendall(b"x")


def test_silent_and_dripping_clients_are_let_go(models: Path) -> None:
    header = (
        b"POST /predict/shade HTTP/1.1\r\nHost: h\r\n"
        b"Content-Type: image/png\r\nContent-Length: 999\r\n"
    )
    sent = {b"": False, header: True, header + b"\r\n": True}
    with (
        running(models, workers=1, timeout_ms=2000) as service,
        contextlib.ExitStack() as held,
        ThreadPoolExecutor(30) as pool,
    ):
        waiting = []
        for begin, drips in list(sent.items()) * 10:
            client = held.enter_context(service.open())
            client.sendall(begin)
            waiting.append(pool.submit(closed, client, drips=drips))
        assert service.request("GET", "/healthz")[0] == 200
        for each in waiting:
            each.result(timeout=60)


def test_more_silent_clients_than_files_stop_nobody(models: Path) -> None:
    with (
        running(models, ("sh", "-c", 'ulimit -n 128 && exec "$@"', "sh"), workers=1) as service,
        contextlib.ExitStack() as held,
    ):
        for _ in range(200):
            held.enter_context(service.open())
        assert service.request("GET", "/healthz")[0] == 200
        assert predict(service, "shade") == 200


def begun(service: Running, length: int, body: bytes) -> socket.socket:
    """A prediction of which a part has come."""
    client = service.open()
    head = "POST /predict/shade HTTP/1.1\r\nHost: h\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {length}"
    client.sendall(head.encode() + b"\r\n\r\n" + body)
    return client


def test_a_body_that_comes_slowly_takes_no_place(models: Path) -> None:
    with (
        running(models, workers=1, requests=1) as service,
        contextlib.ExitStack() as held,
    ):
        slow = [held.enter_context(begun(service, len(DARK), DARK[:1])) for _ in range(4)]
        assert service.request("GET", "/healthz")[0] == 200
        assert {predict(service, "shade") for _ in range(4)} == {200}
        for client in slow:
            client.sendall(DARK[1:])
            assert answer_of(client)[0] == 200


def test_bodies_that_come_are_bounded_by_their_bytes(models: Path) -> None:
    with (
        running(models, workers=1, max_body_bytes=10_000) as service,
        contextlib.ExitStack() as held,
    ):
        slow = [held.enter_context(begun(service, 10_000, bytes(9_000))) for _ in range(9)]
        answered = select.poll()  # select takes no file above the 1,024th
        for each in slow:
            answered.register(each, select.POLLIN)
        refused = dict(answered.poll(60_000))
        (status, body) = answer_of(next(each for each in slow if each.fileno() in refused))
        assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
        assert len(refused) == 1
        assert predict(service, "shade") == 200


def test_a_failed_start_leaves_nothing_behind(models: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--config", "serving/server/gunicorn.conf.py"],
        cwd=ROOT,
        env={
            **environment(models, bind="192.0.2.1:8000"),  # nobody's address
            "PROMETHEUS_MULTIPROC_DIR": str(run),
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert not run.exists()


def test_what_is_not_http_gets_the_one_error_shape(service: Running) -> None:
    with service.open() as client:
        client.sendall(b"GARBAGE\r\n\r\n")
        status, body = answer_of(client)
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")


def test_a_draining_replica_says_so_and_goes_on_answering(models: Path) -> None:
    with running(models, workers=1, drain_seconds=600) as service:
        service.process.terminate()
        status = 200
        while status == 200:
            status, headers, body = service.request("GET", "/readyz")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert json.loads(body)["error"]["code"] == "draining"
        assert service.request("POST", "/predict/shade", DARK, **PNG)[0] == 200
        service.process.send_signal(signal.SIGINT)  # now, not after the drain


def test_the_log_is_one_json_object_a_line(models: Path) -> None:
    with running(models, workers=2) as service:
        service.request("POST", "/predict/shade", DARK, X_Request_ID="one", **PNG)
        service.request("GET", "/healthz")
        _, output = service.terminate()
    lines = [json.loads(line) for line in output.splitlines()]
    (start,) = [line for line in lines if line["message"] == "serving"]
    assert start["models"] == ["shade 1", "shade 2", "tint 1"]
    assert start["address"] == f"http://127.0.0.1:{service.port}"
    (access,) = [line for line in lines if line["message"] == "request"]
    assert access["ms"] > 0
    expected = {"request_id": "one", "method": "POST", "path": "/predict/shade", "status": 200}
    assert expected.items() <= access.items()
    assert (access["model"], access["version"]) == ("shade", 2)


def test_a_broken_model_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    publish(tmp_path, golden={"light-1": 10})
    ended = command_line(tmp_path, workers=2, bind="127.0.0.1:0")
    assert ended.returncode == 1
    assert "shade 1 predicts 'dark' for the golden image" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_misspelt_setting_stops_the_start_with_a_hint(models: Path) -> None:
    ended = command_line(models, thread=4)
    assert ended.returncode == 2
    assert "Did you mean CONVSERVE_THREADS?" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_check_says_what_is_sound_and_what_is_broken(models: Path, tmp_path: Path) -> None:
    ended = command_line(models, "--check")
    assert (ended.returncode, ended.stdout) == (
        0,
        "shade 1: sound\nshade 2: sound\ntint 1: sound\n",
    )
    ended = command_line(tmp_path, "--check")
    assert ended.returncode == 1
    assert "No model is published" in ended.stderr


def test_help_prints_the_settings(models: Path) -> None:
    assert "CONVSERVE_MAX_PIXELS" in command_line(models, "--help").stdout
