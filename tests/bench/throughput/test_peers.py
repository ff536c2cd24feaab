"""The peers answer as we do; otherwise the comparison would be of different work."""

import asyncio
import json
import os
import runpy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from bench.clients import bodies
from bench.rig.service import ROOT, newest, only
from serving.app import create_app
from serving.settings import Settings

PEERS = ROOT / "bench/throughput/peers"


@pytest.fixture(scope="module")
def ours() -> Iterator[FlaskClient]:
    with only([newest(name) for name in bodies.NAMES]) as models:
        yield create_app(Settings(models=models)).test_client()


def peer(name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(os.environ, "MODEL", str(newest(name) / "model.onnx"))
    return runpy.run_path(str(PEERS / script))["app"]


def by_asgi(app: Any, name: str, body: bytes) -> tuple[int, bytes]:
    """Send one request to an ASGI application."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    path = f"/predict/{name}"
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
    }
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""}
    scope |= {"headers": [], "scheme": "http"}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def by_wsgi(app: Flask, name: str, body: bytes) -> tuple[int, bytes]:
    answer = app.test_client().post(
        f"/predict/{name}", data=bodies.form([body]), content_type=bodies.FORM
    )
    return answer.status_code, answer.data


@pytest.mark.parametrize("name", bodies.NAMES)
@pytest.mark.parametrize(
    ("script", "ask"),
    [
        pytest.param("fastapi_app.py", by_asgi, id="FastAPI"),
        pytest.param("flask_app.py", by_wsgi, id="Flask"),
    ],
)
def test_a_peer_answers_the_same_labels(
    ours: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    ask: Callable[[Any, str, bytes], tuple[int, bytes]],
    name: str,
) -> None:
    app = peer(name, script, monkeypatch)
    assert ask(app, name, b"no image")[0] == 400
    for picture in bodies.files(name):
        status, body = ask(app, name, picture)
        answer = ours.post(f"/predict/{name}", data=picture, content_type="image/*")
        assert status == answer.status_code == 200
        assert answer.json is not None
        expected = answer.json["predictions"][0]
        got = json.loads(body)["predictions"][0]
        assert got["label"] == expected["label"]
