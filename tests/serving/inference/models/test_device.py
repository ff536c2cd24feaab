"""A GPU is asked for; here there is none. What is said of a machine with one is untested."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from flask import Flask

from serving.app import create_app
from serving.inference.models.repository import load_version
from serving.inference.models.session import CUDA, Options
from serving.settings import Settings
from tests.serving.samples import assert_error, png, publish

TOLD = "shade 1 was to run on CUDAExecutionProvider and runs on CPUExecutionProvider."

without_cuda = pytest.mark.skipif(
    CUDA in onnxruntime.get_available_providers(), reason="onnxruntime is built with CUDA"
)


@pytest.fixture
def app(models: Path) -> Flask:
    return create_app(Settings(models=models, device="cuda"))


def loaded(folder: Path, device: str) -> Any:
    return load_version(publish(folder), options=Options(device=device))


@without_cuda
def test_a_replica_without_the_gpu_that_it_was_to_use_is_not_ready(client: Any) -> None:
    assert assert_error(client.get("/readyz"), 503, "device_missing") == TOLD


@without_cuda
def test_it_is_alive_and_answers_and_tells_what_it_runs_on(client: Any) -> None:
    assert client.get("/healthz").json == {"status": "alive"}
    told = client.post("/predict/shade", data=png(10), content_type="image/png").json
    assert told["predictions"][0]["label"] == "dark"
    assert client.get("/models/tint").json["versions"][0]["provider"] == "CPUExecutionProvider"
    assert 'provider="CPUExecutionProvider"' in client.get("/metrics").text


@without_cuda
def test_the_log_tells_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert loaded(tmp_path, "cuda").unmet == TOLD
    assert caplog.messages == [TOLD]


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_nothing_is_missed_where_no_gpu_is_demanded(tmp_path: Path, device: str) -> None:
    assert loaded(tmp_path, device).unmet == ""


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_a_batch_that_is_filled_up_is_answered_without_the_filling(
    tmp_path: Path, count: int
) -> None:
    model = loaded(tmp_path, "cpu")
    model._sizes = (2, 4)
    batch = np.zeros((count, 8, 6, 1), np.uint8)
    batch[-1] = 255
    assert model.predict(batch).tolist() == [[1, 0]] * (count - 1) + [[0, 1]]
