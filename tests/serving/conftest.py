"""Three fixtures carry the suite: ``models``, ``app``, ``client``."""

import asyncio
import gc
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from serving.app import SERVICE, create_app
from serving.app.loop_thread import Loop
from serving.app.service import Service
from serving.settings import Settings
from tests.serving.front import Client
from tests.serving.samples import publish

KEY = "the key of the tests that signs their ids"
TESTS = itertools.count(1)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models: ``shade`` (grey, versions 1 and 2, the latter with prediction sets) and ``tint``
    (colour)."""
    folder = tmp_path_factory.mktemp("models")
    publish(folder, name="shade", version=1)
    publish(folder, version=2, metadata={"conformal": '{"0.9": 0.6, "0.99": 0.05}'})
    publish(folder, name="tint", shape=("N", 8, 6, 3))
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create the database of labels in the folder of the test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _closed_loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the event loops of a test's applications, which hold descriptors, and free their
    sessions now and then: Python's collector does not see the memory of onnxruntime."""
    made: list[Loop] = []

    def recorded(loop: asyncio.AbstractEventLoop | None = None) -> Loop:
        made.append(Loop(loop))
        return made[-1]

    monkeypatch.setattr("serving.app.Loop", recorded)
    yield
    while Client.made:
        Client.made.pop().close()
    for each in made:
        each.close()
    if not next(TESTS) % 25:
        gc.collect()


@pytest.fixture
def app(models: Path) -> Flask:
    return create_app(
        Settings(
            models=models,
            max_body_bytes=1_000_000,
            max_images=64,
            max_pixels=1_000_000,
            feedback_keys=KEY,
        )
    )


@pytest.fixture(params=["Flask", "front"])
def client(app: Flask, request: pytest.FixtureRequest) -> FlaskClient | Client:
    """Return a client of Flask and one of the engine: their behaviour is the same."""
    return app.test_client() if request.param == "Flask" else Client(app)


@pytest.fixture
def service(app: Flask) -> Service:
    found = app.extensions[SERVICE]
    assert isinstance(found, Service)
    return found
