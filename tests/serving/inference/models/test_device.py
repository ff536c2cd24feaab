"""A GPU is demanded where there is none. A machine that has one is not tested."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from flask import Flask

from serving.app import create_app
from serving.inference.models.repository import load_version
from serving.inference.models.session import CUDA
from serving.settings import Settings
from tests.serving.samples import assert_error, png, publish

MISSING = "shade 1 runs on CPUExecutionProvider. Expected CUDAExecutionProvider."

without_cuda = pytest.mark.skipif(
    CUDA in onnxruntime.get_available_providers(), reason="onnxruntime is built with CUDA"
)


@pytest.fixture
def app(models: Path) -> Flask:
    return create_app(Settings(models=models, device="cuda"))


def loaded(folder: Path, device: str, **options: Any) -> Any:
    return load_version(publish(folder, **options), Settings(device=device))


@without_cuda
def test_a_replica_without_its_gpu_is_not_ready(client: Any) -> None:
    assert assert_error(client.get("/readyz"), 503, "device_missing") == MISSING


@without_cuda
def test_a_replica_without_its_gpu_answers_and_reports_its_provider(client: Any) -> None:
    assert client.get("/healthz").json == {"status": "alive"}
    answer = client.post("/predict/shade", data=png(10), content_type="image/png").json
    assert answer["predictions"][0]["label"] == "dark"
    assert client.get("/models/tint").json["versions"][0]["provider"] == "CPUExecutionProvider"
    assert 'provider="CPUExecutionProvider"' in client.get("/metrics").text


@without_cuda
def test_a_missing_gpu_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert loaded(tmp_path, "cuda").missing_device == MISSING
    assert caplog.messages == [MISSING]


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_no_gpu_is_missing_if_none_is_demanded(tmp_path: Path, device: str) -> None:
    assert loaded(tmp_path, device).missing_device == ""


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_the_padding_of_a_batch_is_not_answered(
    tmp_path: Path, count: int
) -> None:
    model = loaded(tmp_path, "cpu", typical=0.5)
    model._sizes = (2, 4)
    batch = np.zeros((count, 8, 6, 1), np.uint8)
    batch[-1] = 255
    assert model.infer(batch).tolist() == [[1, 0, 0]] * (count - 1) + [[0, 1, 0.5]]
