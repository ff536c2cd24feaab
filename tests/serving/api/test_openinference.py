"""The Open Inference Protocol: every route, both encodings, every error, and any input."""

import base64
import gzip
import json
import math
import struct
import zlib
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from serving import __version__
from serving.api import body, openinference, tensors
from serving.api.body import Limits
from serving.app.service import Service
from serving.errors import BadRequest, InvalidImage, RequestTooLarge
from serving.inference.images.pixels import PixelSpec
from tests.serving.samples import png

DARK, LIGHT = png(10), png(240)
PIXELS = np.stack([np.full((8, 6, 1), brightness, np.uint8) for brightness in (10, 240)])
SHAPE = list(PIXELS.shape)
INFER = "/v2/models/shade/infer"
HEAD = "Inference-Header-Content-Length"


def as_json(*files: bytes) -> list[str]:
    return [base64.b64encode(file).decode() for file in files]


def tensor(data: Any, shape: list[int], datatype: str = "UINT8", **more: Any) -> dict[str, Any]:
    return {"name": "image", "shape": shape, "datatype": datatype, "data": data, **more}


def files(*contents: bytes) -> dict[str, Any]:
    return tensor(as_json(*contents), [len(contents)], "BYTES")


def elements(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(each)) + each for each in contents)


def infer(client: FlaskClient, *inputs: Any, path: str = INFER, **more: Any) -> TestResponse:
    return client.post(path, json={"inputs": list(inputs), **more})


def infer_binary(
    client: FlaskClient, raw: bytes, shape: list[int], datatype: str = "UINT8", **more: Any
) -> TestResponse:
    size = {"binary_data_size": len(raw)}
    sent = {"name": "image", "shape": shape, "datatype": datatype, "parameters": size}
    head = json.dumps({"inputs": [sent], **more}).encode()
    return client.post(INFER, data=head + raw, headers={HEAD: str(len(head))})


def light(answer: TestResponse) -> list[float]:
    """Return P(light) of each image of a JSON answer, rounded."""
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    output = answer.json["outputs"][0]
    assert (output["name"], output["datatype"]) == ("probabilities", "FP32")
    assert str(output["shape"]) == f"[{len(output['data']) // 2}, 2]"  # whole numbers
    return [round(each, 3) for each in output["data"][1::2]]


def sentence(answer: TestResponse, status: int = 400) -> str:
    """Check the one shape of an error of the protocol; return its message."""
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/json"
    assert answer.headers["X-Request-ID"]
    assert answer.json is not None
    assert answer.json.keys() == {"error"}
    message = answer.json["error"]
    assert isinstance(message, str)
    return message


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "/v2",
            {
                "name": "convserve",
                "version": __version__,
                "extensions": ["binary_tensor_data", "classification"],
            },
        ),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
        ("/v2/models/tint/ready", {"name": "tint", "ready": True}),
        ("/v2/models/shade/versions/1/ready", {"name": "shade", "ready": True}),
        (
            "/v2/models/shade",
            {
                "name": "shade",
                "versions": ["1", "2"],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 6, 1]}],
                "outputs": [
                    {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]},
                    {"name": "id", "datatype": "BYTES", "shape": [-1]},
                ],
            },
        ),
    ],
)
def test_the_server_and_its_models_describe_themselves(
    client: FlaskClient, path: str, expected: dict[str, Any]
) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json) == (200, expected)


def test_a_slash_or_a_version_in_the_path_changes_nothing(client: FlaskClient) -> None:
    assert client.get("/v2/").json == client.get("/v2").json
    assert client.get("/v2/models/shade/versions/1").json == client.get("/v2/models/shade").json


def test_a_draining_replica_is_live_but_not_ready(client: FlaskClient, service: Service) -> None:
    service.draining.set()
    for path in ("/v2/health/ready", "/v2/models/shade/ready", "/v2/models/shade/versions/1/ready"):
        assert sentence(client.get(path), 503) == "This replica is about to stop."
    assert client.get("/v2/health/live").json == {"live": True}


def test_pixels_in_json_are_answered_in_the_documented_shape(client: FlaskClient) -> None:
    answer = infer(client, tensor(PIXELS.tolist(), SHAPE), id="42")
    assert light(answer) == [0.039, 0.941]
    assert answer.json is not None
    assert answer.json | {"outputs": []} == {
        "model_name": "shade",
        "model_version": "2",
        "id": "42",
        "outputs": [],
    }


def test_pixels_may_be_listed_flat(client: FlaskClient) -> None:
    assert light(infer(client, tensor(PIXELS.ravel().tolist(), SHAPE))) == [0.039, 0.941]


def test_pixels_may_be_binary(client: FlaskClient) -> None:
    assert light(infer_binary(client, PIXELS.tobytes(), SHAPE)) == [0.039, 0.941]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_files_may_be_base64_or_binary(client: FlaskClient, shape: list[int]) -> None:
    data = as_json(DARK, LIGHT)
    nested = [[each] for each in data] if len(shape) == 2 else data
    for each in (data, nested):
        assert light(infer(client, tensor(each, shape, "BYTES"))) == [0.039, 0.941]
    raw = elements(DARK, LIGHT)
    assert light(infer_binary(client, raw, shape, "BYTES")) == [0.039, 0.941]


def test_a_version_can_be_chosen(client: FlaskClient) -> None:
    answer = infer(client, files(DARK), path="/v2/models/shade/versions/1/infer")
    assert answer.json is not None
    assert answer.json["model_version"] == "1"
    assert "id" not in answer.json


@pytest.mark.parametrize(
    "wish",
    [
        {"parameters": {"binary_data_output": True}, "outputs": [{"name": "probabilities"}]},
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]},
    ],
)
def test_the_answer_may_be_binary(client: FlaskClient, wish: dict[str, Any]) -> None:
    answer = infer(client, files(DARK, LIGHT), **wish)
    assert answer.mimetype == "application/octet-stream"
    length = int(answer.headers[HEAD])
    (output,) = json.loads(answer.data[:length])["outputs"]
    assert output == {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": [2, 2],
        "parameters": {"binary_data_size": 16},
    }
    rows = np.frombuffer(answer.data[length:], "<f4").reshape(2, 2)
    assert np.round(rows[:, 1], 3).tolist() == pytest.approx([0.039, 0.941])


def judged(client: FlaskClient, ids: list[str], labels: list[str]) -> list[str]:
    """Return the answers to labels of predictions."""
    sent = [{"id": each, "label": label} for each, label in zip(ids, labels, strict=True)]
    answer = client.post("/feedback", json=sent)
    assert answer.json is not None
    return [each["status"] for each in answer.json["results"]]


def test_ids_accompany_probabilities_and_can_be_labelled(client: FlaskClient) -> None:
    answer = infer(client, files(DARK, LIGHT))
    assert answer.json is not None
    probabilities, ids = answer.json["outputs"]
    assert probabilities["name"] == "probabilities"
    assert (ids["name"], ids["datatype"], ids["shape"]) == ("id", "BYTES", [2])
    assert judged(client, ids["data"], ["dark", "dark"]) == ["recorded", "recorded"]


def test_ids_may_be_binary_beside_probabilities_in_json(client: FlaskClient) -> None:
    outputs = [
        {"name": "id", "parameters": {"binary_data": True}},
        {"name": "probabilities", "parameters": {"binary_data": False}},
    ]
    answer = infer(client, tensor(PIXELS.tolist(), SHAPE), outputs=outputs)
    length = int(answer.headers[HEAD])
    ids, probabilities = json.loads(answer.data[:length])["outputs"]
    assert [round(each, 3) for each in probabilities["data"][1::2]] == [0.039, 0.941]
    raw = answer.data[length:]
    assert ids["parameters"] == {"binary_data_size": len(raw)}
    size = int.from_bytes(raw[:4], "little")
    assert elements(raw[4 : 4 + size], raw[8 + size :]) == raw
    assert judged(client, [raw[4 : 4 + size].decode()], ["dark"]) == ["recorded"]


def test_an_output_overrides_the_encoding_of_the_request(client: FlaskClient) -> None:
    outputs = [{"name": "probabilities", "parameters": {"binary_data": False}}]
    wish: dict[str, Any] = {"parameters": {"binary_data_output": True}, "outputs": outputs}
    assert light(infer(client, files(DARK), **wish)) == [0.039]


@pytest.mark.parametrize(("count", "given_"), [(1, 1), (2, 2), (9, 2)])
@pytest.mark.parametrize("binary", [False, True])
def test_the_best_classes_have_value_index_and_label(
    client: FlaskClient, count: int, given_: int, binary: bool
) -> None:
    parameters = {"classification": count, "binary_data": binary}
    outputs = [{"name": "probabilities", "parameters": parameters}]
    answer = infer(client, files(DARK, LIGHT), outputs=outputs)
    expected = [
        *["0.960784:0:dark", "0.039216:1:light"][:given_],
        *["0.941176:1:light", "0.058824:0:dark"][:given_],
    ]
    length = int(answer.headers.get(HEAD, len(answer.data)))
    (output,) = json.loads(answer.data[:length])["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, given_])
    raw = elements(*(text.encode() for text in expected))
    assert answer.data[length:] == (raw if binary else b"")
    assert output.get("data", expected) == expected


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_request_may_be_compressed(client: FlaskClient, encoding: str, pack: Any) -> None:
    body = json.dumps({"inputs": [files(LIGHT)]}).encode()
    for written in (encoding, encoding.upper()):
        answer = client.post(INFER, data=pack(body), headers={"Content-Encoding": written})
        assert light(answer) == [0.941]


@pytest.mark.parametrize(
    ("data", "encoding", "status", "message"),
    [
        (gzip.compress(bytes(1_000_001)), "gzip", 413, "inflates to more than 1000000 bytes"),
        (gzip.compress(b"{}", mtime=0)[:-1], "gzip", 400, "not one whole stream"),
        (gzip.compress(b"{}", mtime=0) * 2, "gzip", 400, "not one whole stream"),
        (b"{}", "deflate", 400, "not in the encoding deflate"),
        (b"{}", "br", 415, "Expected gzip, deflate or none"),
        (b"{}", "identity", 400, "exactly one, 'image'"),
    ],
)
def test_a_body_that_does_not_inflate_is_refused(
    client: FlaskClient, data: bytes, encoding: str, status: int, message: str
) -> None:
    answer = client.post(INFER, data=data, headers={"Content-Encoding": encoding})
    assert message in sentence(answer, status)


def test_half_a_surrogate_pair_is_not_an_id(client: FlaskClient) -> None:
    body = b'{"id": "\\ud800", "inputs": [%b]}' % json.dumps(files(LIGHT)).encode()
    assert "is not valid text" in sentence(client.post(INFER, data=body), 400)


def test_a_small_body_does_not_inflate_to_a_large_one() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 2_000_000, np.uint8).tobytes()
    limit = 10_000_000
    assert body.inflated(gzip.compress(noise), "gzip", limit) == noise
    with pytest.raises(RequestTooLarge, match="more than 1048576 bytes"):
        body.inflated(gzip.compress(bytes(2_000_000)), "gzip", limit)


BAD_INPUTS = {
    "no input": ([], "Expected exactly one, 'image'"),
    "two inputs": ([files(DARK), files(DARK)], "Expected exactly one, 'image'"),
    "no object": ([7], "Expected exactly one, 'image'"),
    "name": ([{**files(DARK), "name": "pixels"}], "Expected exactly one, 'image'"),
    "datatype": ([{**files(DARK), "datatype": "FP32"}], "'FP32'. Expected 'UINT8' for pixels"),
    "case": ([{**files(DARK), "datatype": "uint8"}], "'uint8'. Expected 'UINT8' for pixels"),
    "no datatype": ([{**files(DARK), "datatype": None}], "''. Expected 'UINT8' for pixels"),
    "no shape": ([{**files(DARK), "shape": None}], "[]. Expected [N] or [N, 1]"),
    "shape": ([tensor([0] * 48, [1, 6, 8, 1])], "[1, 6, 8, 1]. Expected [N, 8, 6, 1]"),
    "no batch": ([tensor([0] * 48, [8, 6, 1])], "[8, 6, 1]. Expected [N, 8, 6, 1]"),
    "two in a row": ([tensor(as_json(DARK), [1, 2], "BYTES")], "[1, 2]. Expected [N] or [N, 1]"),
    "text in shape": ([tensor([], ["1"], "BYTES")], "not a list of integers"),  # type: ignore[list-item]
    "true in shape": ([tensor([], [True], "BYTES")], "not a list of integers"),
    "none": ([tensor([], [0], "BYTES")], "no image"),
    "fewer than none": ([tensor([0], [-1], "BYTES")], "no image"),
    "few pixels": ([tensor([0] * 47, [1, 8, 6, 1])], "47 numbers. Expected 48"),
    "nested otherwise": ([tensor([[0] * 48], [1, 8, 6, 1])], "not nested like their shape"),
    "deeper": ([tensor([[[[[0]]] * 6] * 8], [1, 8, 6, 1])], "0 to 255"),
    "large pixel": ([tensor([256] * 48, [1, 8, 6, 1])], "0 to 255"),
    "negative pixel": ([tensor([-1] * 48, [1, 8, 6, 1])], "0 to 255"),
    "broken pixel": ([tensor([0.5] * 48, [1, 8, 6, 1])], "the number 0.5. Expected no"),
    "long pixel": ([tensor([10**20] * 48, [1, 8, 6, 1])], "more than 19 digits"),
    "no pixel": ([tensor([math.nan] * 48, [1, 8, 6, 1])], "0 to 255"),
    "few strings": ([tensor(as_json(DARK), [2], "BYTES")], "1 strings. Expected 2"),
    "no string": ([tensor([7], [1], "BYTES")], "not base64"),
    "no base64": ([tensor(["%"], [1], "BYTES")], "not base64"),
    "bad file": ([files(DARK, b"text", LIGHT)], "Image 2 of 3: The bytes are not a readable"),
    "no data": ([{**files(DARK), "data": None}], "needs either 'data' or"),
    "data is not a list": ([{**files(DARK), "data": "abc"}], "'data' is not a list"),
    "size without bytes": (
        [
            {
                "name": "image",
                "shape": [1],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": 4},
            }
        ],
        "0 bytes follow the JSON. Expected 'binary_data_size', 4",
    ),
    "both": ([{**files(DARK), "parameters": {"binary_data_size": 0}}], "needs either 'data' or"),
    "memory": ([{**files(DARK), "parameters": {"shared_memory_region": "a"}}], "not supported"),
}


@pytest.mark.parametrize(("inputs", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
def test_a_bad_input_is_refused(client: FlaskClient, inputs: list[Any], message: str) -> None:
    assert message in sentence(infer(client, *inputs))


@pytest.mark.parametrize(
    ("raw", "shape", "datatype", "message"),
    [
        (bytes(95), SHAPE, "UINT8", "95 bytes. Expected 96"),
        (bytes(97), SHAPE, "UINT8", "97 bytes. Expected 96"),
        (elements(DARK)[:-1], [1], "BYTES", "Expected"),
        (elements(DARK) + b"x", [1], "BYTES", "Expected"),
        (elements(DARK), [2], "BYTES", "Expected"),
        (b"\x01\x02", [1], "BYTES", "Expected"),
        (b"\xff\xff\xff\xff", [1], "BYTES", "Expected 4294967299"),
        (elements(b""), [1], "BYTES", "not a readable image"),
    ],
)
def test_a_binary_tensor_of_another_size_is_refused(
    client: FlaskClient, raw: bytes, shape: list[int], datatype: str, message: str
) -> None:
    assert message in sentence(infer_binary(client, raw, shape, datatype))


@pytest.mark.parametrize("head", ["0", "-1", "x", "1e3", "9" * 20, "100000", "²", ""])
def test_a_malformed_length_of_the_json_is_refused(client: FlaskClient, head: str) -> None:
    answer = client.post(INFER, data=b"{}", headers={HEAD: head})
    assert "Expected the length of the JSON" in sentence(answer)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"id": 42}, "'id' is not a string"),
        ({"parameters": []}, "'parameters' is not an object"),
        ({"parameters": {"binary_data_output": 1}}, "'binary_data_output' is not a boolean"),
        ({"parameters": {"timeout": "1"}}, "'timeout' is not an integer"),
        ({"parameters": {"timeout": -1}}, "'timeout' is out of range"),
        ({"outputs": {}}, "'outputs' is not a list"),
        ({"outputs": [{"name": "logits"}]}, "Expected 'probabilities' or 'id', each once"),
        ({"outputs": [{"name": "probabilities"}] * 2}, "each once"),
        ({"outputs": [{"name": ["id"]}]}, "each once"),
        ({"outputs": ["id"]}, "each once"),
        (
            {"outputs": [{"name": "probabilities", "parameters": {"classification": True}}]},
            "'classification' is not an integer",
        ),
    ],
)
def test_an_unsupported_request_is_refused(
    client: FlaskClient, more: dict[str, Any], message: str
) -> None:
    assert message in sentence(infer(client, files(DARK), **more))


def test_parameters_that_other_servers_ignore_are_ignored(client: FlaskClient) -> None:
    nulls = {"id": None, "outputs": None}
    more: dict[str, Any] = {**nulls, "parameters": {"priority": 1}, "model_name": "shade"}
    sent = {**files(DARK), "parameters": {"content_type": "base64"}}
    assert light(infer(client, sent, **more)) == [0.039]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_a_body_that_is_not_a_json_object_is_refused(client: FlaskClient, body: bytes) -> None:
    assert "JSON" in sentence(client.post(INFER, data=body))


def test_too_many_images_are_refused(client: FlaskClient) -> None:
    assert "65 images. Expected at most 64" in sentence(infer(client, files(*[DARK] * 65)), 413)
    assert len(light(infer(client, files(*[DARK] * 64)))) == 64


def test_too_many_numbers_are_refused_before_they_are_parsed(client: FlaskClient) -> None:
    answer = infer(client, tensor([0] * 49 * 64, [64, 8, 6, 1]))
    assert "at most 3072 numbers" in sentence(answer, 413)
    assert tensors.NUMBERS > 48 * 64


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v2/models/cats/infer", 404, "Known models: shade, tint."),
        ("POST", "/v2/models/shade/versions/9/infer", 404, "no version 9. Known versions: 1, 2."),
        ("POST", "/v2/models/shade/versions/new/infer", 404, "no version 'new'. Known versions: 1"),
        ("POST", "/v2/models/cats/versions/new/infer", 404, "Known models: shade, tint."),
        ("GET", "/v2/models/cats", 404, "Known models: shade, tint."),
        ("GET", "/v2/models/shade/versions/0/ready", 404, "no version '0'"),
        ("GET", "/v2/models/shade/infer", 405, "does not accept GET. Expected OPTIONS, POST."),
        ("POST", "/v2", 405, "does not accept POST"),
        ("GET", "/v2/nothing", 404, "No route '/v2/nothing'."),
    ],
)
def test_a_wrong_request_gets_its_error(
    client: FlaskClient, method: str, path: str, status: int, message: str
) -> None:
    assert message in sentence(client.open(path, method=method, data=b"{}"), status)


def test_a_request_can_shorten_its_deadline(client: FlaskClient, service: Service) -> None:
    service.pipeline.batcher.running = 1  # a long inference takes the only lane
    answer = infer(client, files(DARK), parameters={"timeout": 20_000})
    assert "deadline" in sentence(answer, 504)
    answer = infer_with_header(client, "20")
    assert "deadline" in sentence(answer, 504)


def infer_with_header(client: FlaskClient, timeout: str) -> TestResponse:
    headers = {"X-Request-Timeout-Ms": timeout}
    return client.post(INFER, json={"inputs": [files(DARK)]}, headers=headers)


def test_a_full_queue_answers_503(client: FlaskClient, service: Service) -> None:
    admission = service.pipeline.admission
    with admission.images(admission.max_images):
        answer = infer(client, files(DARK))
    assert "queue" in sentence(answer, 503)
    assert answer.headers["Retry-After"] == "1"


def test_a_request_is_counted_like_any_other(client: FlaskClient, service: Service) -> None:
    infer(client, files(DARK, LIGHT))
    infer(client, tensor([0], [1]))
    page = service.metrics.page().decode()
    route = 'route="/v2/models/<name>/infer"'
    assert f'convserve_requests_total{{method="POST",{route},status="200"}} 1.0' in page
    assert f'convserve_requests_total{{method="POST",{route},status="400"}} 1.0' in page
    for label in ("dark", "light"):
        assert f'convserve_images_total{{label="{label}",model="shade",version="2"}} 1.0' in page
    for stage in ("decode", "queue", "inference", "whole"):
        counted = f'convserve_stage_seconds_count{{model="shade",stage="{stage}",version="2"}} 1.0'
        assert counted in page


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("V2Server", "/v2"),
        ("V2Live", "/v2/health/ready"),
        ("V2Model", "/v2/models/shade"),
        ("V2ModelReady", "/v2/models/shade/ready"),
        ("Sentence", "/v2/models/cats"),
        ("V2Answer", INFER),
    ],
)
def test_answers_have_the_described_shape(client: FlaskClient, schema: str, path: str) -> None:
    described = json.loads(client.get("/openapi.json").text)
    body = {"inputs": [files(DARK)], "id": "1"}
    answer = client.post(path, json=body) if path == INFER else client.get(path)
    sent = {"components": described["components"]}
    jsonschema.validate(answer.json, {"$ref": f"#/components/schemas/{schema}", **sent})
    jsonschema.validate(body, {"$ref": "#/components/schemas/V2Request", **sent})


SPEC, LIMITS = PixelSpec(2, 2, 1, "stretch"), Limits(body_bytes=10_000, images=3)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)


def likely(*values: Any) -> st.SearchStrategy[Any]:
    """Return mostly valid values, so that later checks are reached, too."""
    return st.one_of(*[st.just(value) for value in values], ANYTHING)


PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": likely(0, 4, 8),
        "binary_data": likely(True, False),
        "binary_data_output": likely(True, False),
        "classification": likely(0, 1, 2**70),
        "timeout": likely(0, 10**6, 2**70),
        "shared_memory_region": likely(None),
    },
)
INPUTS = st.fixed_dictionaries(
    {"name": likely("image"), "datatype": likely("UINT8", "BYTES")},
    optional={
        "shape": likely([1, 2, 2, 1], [1], [2, 1], [2**70, 2, 2, 1], [-1]),
        "data": likely([1, 2, 3, 4], [[[[1], [2]], [[3], [4]]]], ["AAAA"], [["AAAA"], ["AA=="]]),
        "parameters": PARAMETERS | ANYTHING,
    },
)
OUTPUTS = st.fixed_dictionaries(
    {"name": likely("probabilities", "id")}, optional={"parameters": PARAMETERS}
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "id": likely("1"),
        "inputs": st.lists(INPUTS, max_size=2) | ANYTHING,
        "outputs": st.lists(OUTPUTS, max_size=2) | ANYTHING,
        "parameters": PARAMETERS | ANYTHING,
    },
)
RESTS = st.sampled_from([b"", bytes(4), bytes(8), elements(b"ab"), b"\xff" * 4]) | st.binary()


def parsed(data: bytes, head: str | None) -> openinference.Infer | None:
    """Parse a body; return None if it is refused with a 4xx status."""
    try:
        return openinference.parse(data, SPEC, LIMITS, head=head)
    except (BadRequest, RequestTooLarge):
        return None


def check(asked: openinference.Infer) -> None:
    """Check that an accepted request can be answered."""
    assert 1 <= len(asked.images) <= LIMITS.images
    for image in asked.images:
        if isinstance(image, np.ndarray):
            assert (image.shape, image.dtype.name) == ((2, 2, 1), "uint8")
    assert asked.seconds > 0


def asked_for(rest: bytes = b"", head: int = 0, **more: Any) -> openinference.Infer:
    """Parse a body with one input of two black pixels by two; ``head`` is added to its length."""
    body = json.dumps({"inputs": [tensor([0] * 4, [1, 2, 2, 1])], **more}).encode()
    length = str(len(body) + head)
    return openinference.parse(body + rest, SPEC, LIMITS, head=length)


@pytest.mark.parametrize(
    ("timeout", "seconds"), [(0, math.inf), (1, 1e-6), (2**63 - 1, (2**63 - 1) / 1e6)]
)
def test_a_timeout_is_in_microseconds_and_none_if_it_is_0(timeout: int, seconds: float) -> None:
    assert asked_for(parameters={"timeout": timeout}).seconds == seconds


@pytest.mark.parametrize("name", ["timeout", "classification"])
def test_a_number_of_more_than_63_bits_is_out_of_range(name: str) -> None:
    outputs = [{"name": "id", "parameters": {name: 2**63}}] if name != "timeout" else []
    with pytest.raises(BadRequest, match=f"^The parameter '{name}' is out of range"):
        asked_for(parameters={name: 2**63}, outputs=outputs)


def test_the_json_may_be_the_whole_body_and_not_longer() -> None:
    assert len(asked_for().images) == 1
    with pytest.raises(BadRequest, match="Expected the length of the JSON"):
        asked_for(head=1)


def test_each_file_of_a_binary_tensor_is_cut_out_exactly() -> None:
    contents = b"first file", b"second", b"3"
    raw = memoryview(elements(*contents))
    given_ = openinference.Tensor("BYTES", (3,), raw)
    assert openinference._files(given_) == [*contents]


@pytest.mark.parametrize("row", [["AAAA", "AAAA"], []], ids=["two", "none"])
def test_a_row_of_strings_has_one(row: list[str]) -> None:
    body = json.dumps({"inputs": [tensor([row], [1], "BYTES")]}).encode()
    (image,) = openinference.parse(body, SPEC, LIMITS).images
    assert isinstance(image, InvalidImage)


@settings(deadline=None)
@given(BODIES | ANYTHING, RESTS)
def test_any_json_with_any_tensor_is_accepted_or_refused(body: Any, rest: bytes) -> None:
    text = json.dumps(body).encode()
    for head in (str(len(text)), None):
        if asked := parsed(text + rest if head else text, head):
            check(asked)


@settings(deadline=None)
@given(st.binary(max_size=200), st.none() | st.text(max_size=5) | st.integers().map(str))
def test_any_bytes_are_accepted_or_refused(data: bytes, head: str | None) -> None:
    if asked := parsed(data, head):
        check(asked)


def test_the_search_finds_accepted_and_refused_bodies() -> None:
    """Check that the two tests above meet accepted bodies, too."""
    both = [tensor([1, 2, 3, 4], [1, 2, 2, 1]), tensor(["AAAA"], [1], "BYTES")]
    for each in both:
        assert parsed(json.dumps({"inputs": [each]}).encode(), None)
