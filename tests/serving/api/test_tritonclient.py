"""The Open Inference Protocol with its most used client, unmodified: ``tritonclient``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.serving.running import running
from tests.serving.samples import png

PIXELS = np.stack([np.full((8, 6, 1), brightness, np.uint8) for brightness in (10, 240)])
FILES = np.array([png(10), png(240)], dtype=np.object_)


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[InferenceServerClient]:
    with (
        running(models, workers=1) as service,
        InferenceServerClient(f"127.0.0.1:{service.port}") as made,
    ):
        yield made


def image(data: Any, datatype: str = "UINT8", *, binary: bool = True) -> InferInput:
    tensor = InferInput("image", list(data.shape), datatype)
    return tensor.set_data_from_numpy(data, binary_data=binary)


def light(result: Any) -> list[float]:
    rows = result.as_numpy("probabilities")
    assert (rows.dtype, rows.shape[1]) == (np.float32, 2)
    return [round(float(row[1]), 3) for row in rows]


def test_the_server_is_live_and_ready(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("shade")
    assert client.is_model_ready("shade", "1")
    assert not client.is_model_ready("cats")
    assert not client.is_model_ready("shade", "9")


def test_the_server_and_its_models_are_described(client: InferenceServerClient) -> None:
    extensions = client.get_server_metadata()["extensions"]
    assert extensions == ["binary_tensor_data", "classification"]
    model = client.get_model_metadata("tint")
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 6, 3]}]
    assert client.get_model_metadata("shade", "1")["versions"] == ["1", "2"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_pixels_are_predicted(
    client: InferenceServerClient, binary_in: bool, binary_out: bool | None
) -> None:
    outputs = [InferRequestedOutput("probabilities", binary_data=binary_out)]
    result = client.infer(
        "shade",
        [image(PIXELS, binary=binary_in)],
        outputs=None if binary_out is None else outputs,
    )
    assert light(result) == [0.039, 0.941]


@pytest.mark.parametrize("binary", [True, False])
def test_ids_are_an_output(client: InferenceServerClient, binary: bool) -> None:
    wanted = InferRequestedOutput("id", binary_data=binary)
    found = client.infer("shade", [image(FILES, "BYTES")], outputs=[wanted]).as_numpy("id")
    assert found is not None
    assert found.shape == (2,)
    assert client.infer("shade", [image(PIXELS)]).as_numpy("id").shape == (2,)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_files_are_predicted(client: InferenceServerClient, shape: tuple[int, ...]) -> None:
    assert light(client.infer("shade", [image(FILES.reshape(shape), "BYTES")])) == [0.039, 0.941]


@pytest.mark.parametrize("binary", [True, False])
def test_the_best_classes_are_returned(client: InferenceServerClient, binary: bool) -> None:
    wanted = InferRequestedOutput("probabilities", binary_data=binary, class_count=1)
    found = client.infer("shade", [image(FILES, "BYTES")], outputs=[wanted])
    texts = np.asarray(found.as_numpy("probabilities"), dtype=object).ravel().tolist()
    found = [text.decode() if isinstance(text, bytes) else text for text in texts]
    assert found == ["0.960784:0:dark", "0.941176:1:light"]


def test_id_and_version_are_repeated(client: InferenceServerClient) -> None:
    result = client.infer("shade", [image(PIXELS)], model_version="1", request_id="42")
    found = result.get_response()
    assert (found["id"], found["model_name"], found["model_version"]) == ("42", "shade", "1")


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_read(client: InferenceServerClient, algorithm: str) -> None:
    result = client.infer(
        "shade",
        [image(PIXELS)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert light(result) == [0.039, 0.941]


def test_requests_run_concurrently(models: Path) -> None:
    with (
        running(models, workers=1) as service,
        InferenceServerClient(f"127.0.0.1:{service.port}", concurrency=4) as client,
    ):
        sent = [client.async_infer("shade", [image(PIXELS)], timeout=5_000_000) for _ in range(16)]
        assert [light(each.get_result()) for each in sent] == [[0.039, 0.941]] * 16


@pytest.mark.parametrize(
    ("model", "version", "tensor", "status", "message"),
    [
        ("cats", "", image(PIXELS), "404", "No model named 'cats'. Known models: shade, tint."),
        ("shade", "9", image(PIXELS), "404", "has no version 9. Known versions: 1, 2."),
        ("tint", "", image(PIXELS), "400", "shape is [2, 8, 6, 1]. Expected [N, 8, 6, 3]."),
        ("shade", "", image(PIXELS.astype(np.float32), "FP32"), "400", "datatype is 'FP32'"),
        (
            "shade",
            "",
            image(np.array([png(9), b"text"], np.object_), "BYTES"),
            "400",
            "Image 2 of 2",
        ),
    ],
)
def test_an_error_has_the_words_of_the_service(
    client: InferenceServerClient,
    model: str,
    version: str,
    tensor: InferInput,
    status: str,
    message: str,
) -> None:
    with pytest.raises(InferenceServerException) as found:
        client.infer(model, [tensor], model_version=version)
    assert found.value.status() == status
    assert message in found.value.message()
