"""The service in its own processes: sockets and signals."""

import contextlib
import fcntl
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.serving.monitoring.test_metrics import value
from tests.serving.running import ROOT, Running, command_line, environment, running
from tests.serving.samples import brightness_graph, multipart, png, publish
from tests.serving.waiting import until

DARK = png(10)
PNG = {"Content_Type": "image/png"}


def predict(service: Running, model: str) -> int:
    return service.request("POST", f"/predict/{model}", DARK, **PNG)[0]


@pytest.fixture(scope="module")
def service(models: Path) -> Iterator[Running]:
    with running(models, workers=2) as started:
        yield started


def test_an_answer_carries_the_request_id(service: Running) -> None:
    status, headers, body = service.request(
        "POST", "/predict/shade", DARK, X_Request_ID="mine", **PNG
    )
    assert (status, headers["X-Request-ID"]) == (200, "mine")
    assert json.loads(body)["predictions"][0]["label"] == "dark"


def test_metrics_sum_up_all_workers(service: Running) -> None:
    def count() -> float:
        page = service.request("GET", "/metrics")[2].decode()
        return value(page, "convserve_images_total", model="tint")

    before = count()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: predict(service, "tint"), range(64))) == {200}
    assert count() - before == 64


def test_a_body_over_the_limit_is_answered_though_all_of_it_is_sent(service: Running) -> None:
    status, _, body = service.request("POST", "/predict/shade", bytes(40_000_000), **PNG)
    assert (status, json.loads(body)["error"]["code"]) == (413, "request_too_large")


def test_a_body_for_an_unknown_path_is_answered_too(service: Running) -> None:
    assert service.request("POST", "/nothing", bytes(20_000_000), **PNG)[0] == 404


def test_a_chunked_body_has_the_same_limit(service: Running) -> None:
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


def test_a_client_that_disconnects_in_a_body_does_no_harm(service: Running) -> None:
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
    assert set(seen) <= {200, 503, 504}  # 504 on a busy machine: the deadline passed in the queue


def hammer(
    service: Running, seen: list[int | str], stop: threading.Event, *, resets: bool = False
) -> None:
    """Send predictions at full speed on kept-alive connections, until ``stop`` or a refusal.

    ``resets``: a new connection may be reset before its first answer.
    """
    connection = service.connect()
    while not stop.is_set():
        try:
            connection.connect()
        except ConnectionRefusedError:
            return
        answered, reusable = 0, True
        while reusable and not stop.is_set():
            try:
                connection.request("POST", "/predict/shade", DARK, {"Content-Type": "image/png"})
                response = connection.getresponse()
                reusable = not response.will_close
                seen.append(response.status if response.read() else "empty")
                answered += 1
            except (OSError, http.client.HTTPException) as exc:
                if resets and not answered:
                    return
                seen.append(repr(exc))
                reusable = False
        connection.close()


def answered(output: str) -> int:
    """Return the number of predictions that the service answered, from its log."""
    lines = [json.loads(line) for line in output.splitlines()]
    return sum(line["message"] == "request" and line["method"] == "POST" for line in lines)


def test_every_request_is_answered_when_clients_watch_readiness(models: Path) -> None:
    with running(models, workers=2, drain_seconds=3) as service:
        seen: list[int | str] = []
        stop = threading.Event()
        clients = [threading.Thread(target=hammer, args=(service, seen, stop)) for _ in range(8)]
        for client in clients:
            client.start()
        until(lambda: len(seen) > 200)
        service.process.terminate()
        until(lambda: service.request("GET", "/readyz")[0] == 503)  # as a load balancer asks
        stop.set()
        for client in clients:
            client.join()
        code, output = service.terminate()
    assert code == 0, output
    assert set(seen) == {200}
    assert answered(output) == len(seen)


def test_every_received_request_is_answered_when_clients_ignore_readiness(models: Path) -> None:
    """A connection that opens while the last listener closes may be reset; all else is answered."""
    with running(models, workers=2) as service:
        seen: list[int | str] = []
        hammering = partial(hammer, service, seen, threading.Event(), resets=True)
        clients = [threading.Thread(target=hammering) for _ in range(8)]
        for client in clients:
            client.start()
        until(lambda: len(seen) > 200)
        code, output = service.terminate()
        for client in clients:  # until they are refused
            client.join()
    assert code == 0, output
    assert set(seen) == {200}
    assert answered(output) == len(seen)


def test_connections_in_the_accept_queue_are_answered_when_the_service_stops(
    models: Path,
) -> None:
    with running(models, workers=1) as service, contextlib.ExitStack() as opened:
        (worker,) = service.workers()
        os.kill(worker, signal.SIGSTOP)
        until(lambda: stopped(worker))
        clients = [opened.enter_context(service.open()) for _ in range(32)]
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        service.process.terminate()
        until(lambda: pending(worker, signal.SIGTERM))
        os.kill(worker, signal.SIGCONT)
        assert [answer_of(client)[0] for client in clients] == [200] * 32


def stopped(pid: int) -> bool:
    """Return True if all threads of a process are stopped; one that runs could handle a signal."""
    return all(
        "State:\tT" in each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/status")
    )


def pending(pid: int, number: signal.Signals) -> bool:
    """Return True if a stopped process has not handled a signal yet."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [line.split()[1] for line in status.splitlines() if line[:6] in ("SigPnd", "ShdPnd")]
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def answer_of(client: socket.socket) -> tuple[int, bytes]:
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer.status, answer.read()


def test_a_worker_that_hangs_is_replaced_logged_and_counted(models: Path) -> None:
    with running(models, workers=1, hang_seconds=3) as service, service.open() as client:
        (worker,) = service.workers()
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        assert answer_of(client)[0] == 200
        os.kill(worker, signal.SIGSTOP)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        until(lambda: predict(service, "shade") == 200)
        page = service.request("GET", "/metrics")[2].decode()
        assert value(page, "convserve_worker_hangs_total") == 1
        _, output = service.terminate()
    lines = [json.loads(line) for line in output.splitlines()]
    hangs = [line for line in lines if line["message"].startswith("a worker gave no heartbeat")]
    assert [(line["pid"], line["slot"], line["seconds"]) for line in hangs] == [(worker, 0, 3)]


def test_a_target_that_is_too_long_is_refused(service: Running) -> None:
    with service.open() as client:
        client.sendall(b"GET /" + b"x" * 50_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        status, body = answer_of(client)
    assert (status, json.loads(body)["error"]["code"]) == (414, "target_too_long")


def test_more_silent_clients_than_file_descriptors_block_nobody(models: Path) -> None:
    with (
        running(models, ("sh", "-c", 'ulimit -n 128 && exec "$@"', "sh"), workers=1) as service,
        contextlib.ExitStack() as held,
    ):
        for _ in range(200):
            held.enter_context(service.open())
        assert service.request("GET", "/healthz")[0] == 200
        assert predict(service, "shade") == 200


def begun(service: Running, length: int, body: bytes) -> socket.socket:
    """Send a part of a prediction."""
    client = service.open()
    head = "POST /predict/shade HTTP/1.1\r\nHost: h\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {length}"
    client.sendall(head.encode() + b"\r\n\r\n" + body)
    return client


def test_a_body_that_arrives_slowly_holds_no_place(models: Path) -> None:
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


def test_arriving_bodies_that_stall_shut_out_nobody(models: Path) -> None:
    size = 1_000_000
    with (
        running(models, workers=1, max_body_bytes=size) as service,
        contextlib.ExitStack() as held,
    ):
        slow = [held.enter_context(begun(service, size, bytes(size - 1))) for _ in range(9)]
        answered = select.poll()  # select accepts no descriptor above 1,023
        for each in slow:
            answered.register(each, select.POLLIN)
        refused = dict(answered.poll(60_000))  # the bytes of eight bodies are held
        (status, body) = answer_of(next(each for each in slow if each.fileno() in refused))
        assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
        assert len(refused) == 1
        assert {predict(service, "shade") for _ in range(20)} == {200}
        answered.unregister(next(iter(refused)))
        time.sleep(1.5)  # from now on they stall
        image = "/predict/shade", bytes(size // 2)
        assert service.request("POST", *image, content_type="image/png")[0] == 400  # not 503
        given_up = dict(answered.poll(60_000))
        assert len(given_up) == 1
        (status, body) = answer_of(next(each for each in slow if each.fileno() in given_up))
        assert status == 503
        assert "arrived too slowly" in json.loads(body)["error"]["message"]


def replaced(service: Running, before: set[str]) -> bool:
    """Return True if there is another worker than before."""
    return bool(service.children() - before)


def found(service: Running, path: str) -> bool:
    return service.status("GET", path) == 200


def test_a_reader_of_the_log_that_stalls_stops_no_process(models: Path, tmp_path: Path) -> None:
    os.mkfifo(log := tmp_path / "log")
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    shell = ["sh", "-c", 'exec "$@" >"$0"', str(log)]
    with running(models, shell, workers=1) as service:
        assert {predict(service, "shade") for _ in range(100)} == {200}  # the pipe is full
        for _ in range(2):  # the master logs that it replaces a worker
            before = service.children()
            os.kill(int(next(iter(before))), signal.SIGKILL)
            until(partial(replaced, service, before))
            assert predict(service, "shade") == 200
        assert service.terminate()[0] == 0
        assert b'"serving"' in os.read(reader, 65536)
    os.close(reader)


def test_a_failed_start_leaves_nothing_behind(models: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--config", "serving/server/gunicorn.conf.py"],
        cwd=ROOT,
        env={
            **environment(models, bind="192.0.2.1:8000"),  # reserved for documentation
            "PROMETHEUS_MULTIPROC_DIR": str(run),
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert not run.exists()


def test_a_malformed_request_has_the_one_error_shape(service: Running) -> None:
    with service.open() as client:
        client.sendall(b"\x16\x03\x01\r\n\r\n")
        status, body = answer_of(client)
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_request")


def test_a_draining_replica_is_not_ready_and_continues_to_answer(models: Path) -> None:
    with running(models, workers=1, drain_seconds=600) as service:
        service.process.terminate()
        status = 200
        while status == 200:
            status, headers, body = service.request("GET", "/readyz")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert json.loads(body)["error"]["code"] == "draining"
        assert service.request("POST", "/predict/shade", DARK, **PNG)[0] == 200
        service.process.send_signal(signal.SIGINT)  # without the drain


def test_the_log_is_one_json_object_a_line(models: Path) -> None:
    with running(models, workers=2) as service:
        service.request("POST", "/predict/shade", DARK, X_Request_ID="one", **PNG)
        service.request("GET", "/healthz")
        service.request("POST", "/predict/none", DARK, **PNG)
        _, output = service.terminate()
    lines = [json.loads(line) for line in output.splitlines()]
    (start,) = [line for line in lines if line["message"] == "serving"]
    assert start["models"] == ["shade 1", "shade 2", "tint 1"]
    assert start["address"] == f"http://127.0.0.1:{service.port}"
    access, refused = [line for line in lines if line["message"] == "request"]
    assert (refused["status"], refused["error"]) == (404, "unknown_model")
    assert "error" not in access
    assert access["ms"] > 0
    expected = {"request_id": "one", "method": "POST", "path": "/predict/shade", "status": 200}
    assert expected.items() <= access.items()
    assert (access["model"], access["version"]) == ("shade", 2)


def test_a_unix_socket_is_for_its_owner_and_group(models: Path, tmp_path: Path) -> None:
    address = tmp_path / "socket"
    process = subprocess.Popen(
        [sys.executable, "-m", "serving"],
        cwd=ROOT,
        env=environment(
            models, bind=f"unix:{address}", workers=1, feedback_url="sqlite:////dev/null"
        ),
        stdout=subprocess.DEVNULL,
    )
    try:
        until(address.is_socket)
        assert oct(address.stat().st_mode & 0o777) == "0o660"
    finally:
        process.terminate()
        process.wait(60)


def shared_memory(size: str) -> list[str]:
    """Return a command that runs another with a /dev/shm of that size, in mounts of its own."""
    mount = ["unshare", "--mount", "sh", "-c"]
    mount += ['mount -t tmpfs -o size="$0" none /dev/shm && exec "$@"', size]
    if subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("A file system cannot be mounted here.")
    return mount


def test_a_service_without_room_in_shared_memory_starts(models: Path) -> None:
    with running(models, shared_memory("64k"), workers=2) as service:
        assert predict(service, "shade") == 200
        page = service.request("GET", "/metrics")[2].decode()
        assert value(page, "convserve_requests_total", status="200", method="POST") == 1
        output = service.terminate()[1]
    assert output.count("no room in shared memory") == 1


def test_shared_memory_that_fills_up_ends_no_worker(tmp_path: Path) -> None:
    publish(tmp_path)
    size = 5 * 2**20
    with running(tmp_path, shared_memory(str(size)), workers=1, poll_seconds=0.05) as service:
        (first,) = service.children()
        filler = Path(f"/proc/{service.process.pid}/root/dev/shm/filler")
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        for version in (2, 3):
            publish(tmp_path, version=version)
            until(partial(found, service, f"/v2/models/shade/versions/{version}"))
            assert predict(service, "shade") == 200
        assert service.status("GET", "/readyz") == 200
        assert service.status("GET", "/metrics") == 200
        assert service.children() == {first}
        os.kill(int(first), signal.SIGKILL)  # another one starts in the same memory
        until(partial(replaced, service, {first}))
        assert predict(service, "shade") == 200
        assert service.status("GET", "/readyz") == 200
        (second,) = service.children()
        assert second != first
        output = service.terminate()[1]
    assert output.count("no room for the counts") == 2  # one line of each worker


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


def test_check_reports_each_model(models: Path, tmp_path: Path) -> None:
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
