"""Versions published and removed while the service runs: processes, signals, load."""

import http.client
import json
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.rig.sockets import owners
from serving.feedback.database import Database
from tests.serving.monitoring.test_metrics import labels, value
from tests.serving.running import Running, running
from tests.serving.samples import publish
from tests.serving.server.test_service import DARK, hammer
from tests.serving.waiting import until

POLL = 0.05


def workers(service: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.json("GET", "/models")["workers"]
    return found


def serve(service: Running, versions: list[int], default: int, count: int = 2) -> bool:
    """Return True if all workers serve just this."""
    states = workers(service)
    return len(states) == count and all(
        state["state"] == "ready"
        and state["models"]["shade"]["versions"] == versions
        and state["models"]["shade"]["default_version"] == default
        for state in states
    )


def route(folder: Path, rule: Any) -> None:
    (folder / "routing.json").write_text(json.dumps({"shade": rule}))


@contextmanager
def hammered(service: Running, clients: int = 3) -> Iterator[list[int | str]]:
    """Send predictions meanwhile. Yield their results."""
    seen: list[int | str] = []
    stop = threading.Event()
    threads = [threading.Thread(target=hammer, args=(service, seen, stop)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    yield seen
    stop.set()
    for thread in threads:
        thread.join()


def published(
    folder: Path, outside: Path, version: int, golden: dict[str, int] | None = None
) -> None:
    """Publish by a rename, as training does."""
    made = publish(outside, version=version, golden=golden)
    made.rename(folder / "shade" / str(version))


def test_all_workers_converge_and_no_request_fails(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    publish(folder)
    with running(folder, workers=2, poll_seconds=POLL) as service:
        until(lambda: serve(service, [1], 1))
        old = service.children()
        with hammered(service) as seen:
            published(folder, tmp_path, 2)
            until(lambda: serve(service, [1, 2], 2))
            route(folder, {"default": 1, "canary": {"version": 2, "share": 0.5}})
            until(lambda: serve(service, [1, 2], 1))
            route(folder, {"default": 2})
            until(lambda: serve(service, [1, 2], 2))
            shutil.rmtree(folder / "shade" / "1")
            until(lambda: serve(service, [2], 2))
        assert set(seen) == {200}
        assert service.children() == old
        page = service.request("GET", "/metrics")[2].decode()
        assert value(page, "convserve_images_total", model="shade") == len(seen)
        assert labels(page, "convserve_model_info", "version") == {"2"}


def test_sighup_refreshes_the_repository(tmp_path: Path) -> None:
    publish(tmp_path)
    with running(tmp_path, workers=2, poll_seconds=0, drain_seconds=600) as service:
        until(lambda: serve(service, [1], 1))
        old = service.children()
        publish(tmp_path, version=2)
        service.process.send_signal(signal.SIGHUP)
        until(lambda: serve(service, [1, 2], 2))
        assert service.children() == old
        assert service.request("GET", "/readyz")[0] == 200
        service.process.send_signal(signal.SIGINT)  # no drain


def test_a_refused_version_is_reported_by_every_worker_and_logged_once(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    publish(folder)
    with running(folder, workers=2, poll_seconds=POLL) as service:
        published(folder, tmp_path, 2, {"light-1": 10})
        route(folder, {"default": 2})

        def reported() -> bool:
            keys = [state["refused"].keys() for state in workers(service)]
            return keys == [{"shade/2", "routing.json"}] * 2

        until(reported)
        assert serve(service, [1], 1)
        page = service.request("GET", "/metrics")[2].decode()
        assert value(page, "convserve_refused", path="shade/2") == 1
        code, output = service.terminate()
    assert code == 0
    lines = [json.loads(line) for line in output.splitlines()]
    refused = [line for line in lines if line.get("path") == "shade/2"]
    assert len(refused) == len({line["process"] for line in refused}) == 2
    assert all("shade 2 predicts 'dark' for the golden image" in line["reason"] for line in refused)


def replace(service: Running) -> None:
    """Kill a worker, and wait until another has replaced it."""
    old = service.children()
    os.kill(int(min(old)), signal.SIGKILL)
    until(lambda: min(old) not in service.children() and len(service.children()) == len(old))


def test_a_worker_that_replaces_a_killed_one_has_the_same_view(tmp_path: Path) -> None:
    publish(tmp_path)
    publish(tmp_path, version=2)
    with running(tmp_path, workers=2, poll_seconds=POLL) as service:
        route(tmp_path, {"default": 1})
        until(lambda: serve(service, [1, 2], 1))
        publish(tmp_path, version=3, golden={"light-1": 10})
        (tmp_path / "routing.json").write_text("{")
        replace(service)
        until(lambda: serve(service, [1, 2], 1))
        until(lambda: len({json.dumps(each["refused"]) for each in workers(service)}) == 1)
        assert workers(service)[0]["refused"].keys() == {"shade/3", "routing.json"}
        listed = service.json("GET", "/models")
        assert listed["refused"].keys() == {"routing.json"}
        assert listed["models"][0]["refused"].keys() == {"shade/3"}
        _, output = service.terminate()
    lines = [json.loads(line) for line in output.splitlines()]
    messages = Counter(line["message"] for line in lines)
    assert messages["routed"] in (1, 2)  # by each worker, unless one was killed before it wrote
    assert messages["stopping"] == 1


def test_labels_are_in_one_file_after_the_service_has_stopped(tmp_path: Path) -> None:
    publish(tmp_path / "models")
    url = f"sqlite:///{tmp_path}/labels.db"
    with running(tmp_path / "models", workers=2, feedback_url=url) as service:
        for _ in range(20):
            made = service.json("POST", "/predict/shade", DARK, Content_Type="image/png")
            given = {"id": made["predictions"][0]["id"], "label": "dark"}
            answer = service.json("POST", "/feedback", json.dumps(given).encode())
            assert answer["status"] == "recorded"
        service.terminate()
    copy = shutil.copy(tmp_path / "labels.db", tmp_path / "copy.db")
    store = Database(f"sqlite:///{copy}", replica="one", worker=0)
    assert len(list(store.all())) == 20


def test_an_unreachable_database_is_logged_at_the_start(tmp_path: Path) -> None:
    publish(tmp_path)
    url = f"sqlite:///{tmp_path}/nowhere/labels.db"
    with running(tmp_path, workers=2, feedback_url=url) as service:
        until(lambda: "the database of labels is unreachable" in service.output())
        assert "unable to open database file" in service.output()
        assert service.request("GET", "/readyz")[0] == 200


def test_a_worker_that_replaces_another_gets_its_share_of_old_connections(
    tmp_path: Path,
) -> None:
    publish(tmp_path)
    with running(tmp_path, workers=2) as service, ExitStack() as opened:
        clients = [opened.enter_context(closing(service.connect())) for _ in range(8)]

        fair = [3, 5], [4, 4]  # a worker tolerates a quarter more than another has, and one

        def ask() -> None:
            for client in clients:
                try:
                    client.request("GET", "/healthz")
                    assert client.getresponse().read()
                except (OSError, http.client.HTTPException):  # its worker was killed
                    client.close()

        def spread() -> list[int]:
            ask()
            pids = [int(pid) for pid in service.children()]
            return sorted(Counter(owners(pids, service.port).values()).values())

        until(lambda: spread() in fair)
        replace(service)
        until(lambda: spread() in fair)


def test_a_worker_that_is_replaced_drains_at_once_and_fails_no_request(tmp_path: Path) -> None:
    publish(tmp_path)
    with running(tmp_path, workers=2, drain_seconds=600) as service:
        with hammered(service) as seen:
            until(lambda: len(seen) > 50)
            old = service.workers()
            os.kill(old[0], signal.SIGTERM)
            until(lambda: old[0] not in service.workers() and len(service.workers()) == 2)
            assert service.request("GET", "/readyz")[0] == 200
        assert set(seen) == {200}
        assert '"stopping"' not in service.output()
        service.process.send_signal(signal.SIGINT)  # no drain


def open_files(pid: str) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: str) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.mark.slow
def test_forty_reloads_under_load_fail_no_request_and_leak_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    publish(folder)
    with running(folder, workers=2, poll_seconds=POLL) as service:

        def reload() -> None:
            published(folder, tmp_path, 2)
            until(lambda: serve(service, [1, 2], 2))
            shutil.rmtree(folder / "shade" / "2")
            until(lambda: serve(service, [1], 1))

        def held(count: Callable[[str], int]) -> int:
            return max(map(count, service.children()))

        with hammered(service, clients=2) as seen:
            reload()
            files, running_threads = held(open_files), held(threads)
            for _ in range(19):
                reload()
            assert held(open_files) <= files + 4
            assert held(threads) <= running_threads + 4
        assert set(seen) == {200}
