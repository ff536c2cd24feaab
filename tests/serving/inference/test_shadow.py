"""The version that predicts unseen, and how often it would have answered otherwise."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from serving.app import SERVICE, create_app
from serving.app.service import Service
from serving.inference import shadow
from serving.settings import Settings
from tests.serving.front import Client
from tests.serving.monitoring.test_metrics import value
from tests.serving.samples import multipart, png, publish
from tests.serving.waiting import until

DARK, GREY, LIGHT = png(10), png(150), png(240)


def routed(folder: Path, told: Any = 2) -> Flask:
    (folder / "routing.json").write_text(json.dumps({"shade": {"default": 1, "shadow": told}}))
    return create_app(Settings(models=folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Version 2 takes grey for dark, which version 1 takes for light."""
    publish(tmp_path)
    publish(tmp_path, version=2, white=400.0)
    return tmp_path


@pytest.fixture(params=["Flask", "front"])
def client(folder: Path, request: pytest.FixtureRequest) -> FlaskClient | Client:
    app = routed(folder)
    return app.test_client() if request.param == "Flask" else Client(app)


def post(client: Any, *files: bytes, query: str = "") -> int:
    body, kind = multipart(*files)
    answer = client.post(f"/predict/shade{query}", data=body, content_type=kind)
    assert answer.status_code == 200, answer.text
    return int(answer.json["version"])


@contextmanager
def busy(app: Flask) -> Iterator[None]:
    """A request is there all the time."""
    admission = app.extensions[SERVICE].pipeline.admission
    admission._requests += 1
    yield
    admission._requests -= 1


def counted(client: Any) -> dict[str, int]:
    page = client.get("/metrics").text
    found = {}
    for result in ("agreed", "disagreed", "dropped", "failed"):
        try:
            found[result] = int(value(page, "convserve_shadow_images_total", result=result))
        except AssertionError:
            continue
    return {result: count for result, count in found.items() if count}


def test_agreement_is_counted_image_by_image_and_no_answer_differs(client: Any) -> None:
    assert post(client, DARK, b"broken", GREY, LIGHT) == 1
    until(lambda: sum(counted(client).values()) == 3)
    assert counted(client) == {"agreed": 2, "disagreed": 1}
    page = client.get("/metrics").text
    shade = {"model": "shade", "version": "1", "shadow": "2"}
    assert value(page, "convserve_shadow_images_total", **shade) == 3
    assert value(page, "convserve_images_total", model="shade", version="2") == 0


def test_a_request_that_names_a_version_has_no_shadow(client: Any) -> None:
    assert post(client, GREY, query="?version=1") == 1
    assert post(client, GREY, query="?version=2") == 2
    assert post(client, DARK) == 1
    until(lambda: bool(counted(client)))
    assert counted(client) == {"agreed": 1}


def test_a_shadow_of_other_pixels_reads_the_file_again(tmp_path: Path) -> None:
    publish(tmp_path)
    publish(tmp_path, version=2, shape=("N", 16, 16, 3))
    client = routed(tmp_path).test_client()
    post(client, DARK, b"broken", LIGHT)
    until(lambda: bool(counted(client)))
    assert counted(client) == {"agreed": 2}


def test_a_share_of_the_requests_has_a_shadow(folder: Path) -> None:
    client = routed(folder, {"version": 2, "share": 0}).test_client()
    post(client, GREY)
    client = routed(folder, {"version": 2, "share": 1}).test_client()
    post(client, GREY)
    until(lambda: bool(counted(client)))
    assert counted(client) == {"disagreed": 1}


def test_what_is_too_much_is_dropped_and_counted(folder: Path) -> None:
    app = routed(folder)
    with busy(app):
        client = app.test_client()
        for _ in range(shadow.WAITING + 5):
            post(client, DARK)
        assert counted(client) == {"dropped": 5}


def test_pixels_that_wait_keep_no_body(folder: Path) -> None:
    app = routed(folder)
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 6, 1]}
    tensor["parameters"] = {"binary_data_size": 48}  # type: ignore[assignment]
    head = json.dumps({"inputs": [tensor]}).encode() + b" " * 100_000
    with busy(app):
        answer = app.test_client().post(
            "/v2/models/shade/infer",
            data=head + bytes(48),
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        assert answer.status_code == 200, answer.text
        (waiting,) = app.extensions[SERVICE].pipeline._shadow._waiting
        assert [each.base for each in waiting.pictures] == [None]


def test_a_shadow_waits_until_no_request_is_there(folder: Path) -> None:
    app = routed(folder)
    client = app.test_client()
    with busy(app):
        post(client, GREY)
        assert counted(client) == {}
    post(client, LIGHT)
    until(lambda: sum(counted(client).values()) == 2)
    assert counted(client) == {"agreed": 1, "disagreed": 1}


def test_a_shadow_that_is_retired_is_dropped(folder: Path) -> None:
    app = routed(folder)
    service: Service = app.extensions[SERVICE]
    client = app.test_client()
    with busy(app):
        post(client, GREY)
        (folder / "routing.json").unlink()
        for each in sorted((folder / "shade" / "2").rglob("*"), reverse=True):
            each.rmdir() if each.is_dir() else each.unlink()
        (folder / "shade" / "2").rmdir()
        service.reloader.look()
    post(client, LIGHT)
    until(lambda: bool(counted(client)))
    assert counted(client) == {"dropped": 1}


def test_a_shadow_that_fails_is_counted_and_seen_by_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = routed(folder)
    service: Service = app.extensions[SERVICE]
    client = app.test_client()
    model = service.repository.get("shade", 2)
    monkeypatch.setattr(model, "predict", None)
    assert post(client, GREY) == 1
    until(lambda: bool(counted(client)))
    assert counted(client) == {"failed": 1}
