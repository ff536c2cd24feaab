"""TensorFlow Serving's API: every route, both formats, every error, and any input."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from serving.api import tfserving
from serving.api.body import Limits
from serving.app import create_app
from serving.app.service import Service
from serving.errors import BadRequest, RequestTooLarge
from serving.inference.images.pixels import PixelSpec
from serving.settings import Settings
from tests.serving.api.test_openinference import ANYTHING, likely, sentence
from tests.serving.samples import png, publish

PREDICT = "/v1/models/shade:predict"
DARK, LIGHT = ({"b64": base64.b64encode(png(brightness)).decode()} for brightness in (10, 240))
PIXELS = np.stack([np.full((8, 6, 1), brightness) for brightness in (10, 240)]).tolist()


def predict(client: FlaskClient, path: str = PREDICT, **body: Any) -> TestResponse:
    return client.post(path, json=body)


def light(answer: TestResponse, key: str = "predictions") -> list[float]:
    """Return P(light) of each image, rounded."""
    assert answer.status_code == 200, answer.text
    assert answer.json is not None
    assert answer.json.keys() == {key, "ids"}
    return [round(row[1], 3) for row in answer.json[key]]


IMAGES = {
    "files": [DARK, LIGHT],
    "named files": [{"image": DARK}, {"image_bytes": LIGHT}],
    "pixels": PIXELS,
    "named pixels": [{"image": each} for each in PIXELS],
    "flat pixels": [[10] * 48, [240] * 48],
    "both": [DARK, PIXELS[1]],
}


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES.keys())
def test_images_are_rows_or_a_column(client: FlaskClient, images: list[Any]) -> None:
    assert light(predict(client, instances=images)) == [0.039, 0.941]
    assert light(predict(client, inputs=images), "outputs") == [0.039, 0.941]


def test_a_column_may_be_named(client: FlaskClient) -> None:
    answer = predict(client, inputs={"image": PIXELS}, signature_name="serving_default")
    assert light(answer, "outputs") == [0.039, 0.941]


@pytest.mark.parametrize("images", [[DARK, LIGHT], PIXELS], ids=["files", "pixels"])
def test_each_image_has_an_id_that_can_be_labelled(client: FlaskClient, images: list[Any]) -> None:
    answer = predict(client, instances=images)
    assert answer.json is not None
    labels = [{"id": each, "label": "dark"} for each in answer.json["ids"]]
    judged = client.post("/feedback", json=labels).json
    assert judged is not None
    assert [each["status"] for each in judged["results"]] == ["recorded", "recorded"]


def test_a_row_holds_the_probability_of_each_label(client: FlaskClient) -> None:
    answer = predict(client, instances=[LIGHT])
    assert answer.json is not None
    assert answer.json["predictions"] == [pytest.approx([0.058824, 0.941176], abs=1e-6)]


def test_a_version_can_be_chosen(client: FlaskClient) -> None:
    assert light(predict(client, "/v1/models/shade/versions/1:predict", instances=[DARK])) == [
        0.039
    ]


def test_a_request_may_be_compressed(client: FlaskClient) -> None:
    body = gzip.compress(json.dumps({"instances": [DARK]}).encode())
    assert light(client.post(PREDICT, data=body, headers={"Content-Encoding": "gzip"})) == [0.039]


def state(version: str) -> dict[str, Any]:
    status = {"error_code": "OK", "error_message": ""}
    return {"version": version, "state": "AVAILABLE", "status": status}


def test_the_state_of_versions_is_reported(client: FlaskClient) -> None:
    of_all = client.get("/v1/models/shade").json
    assert of_all == {"model_version_status": [state("1"), state("2")]}
    of_one = client.get("/v1/models/shade/versions/1").json
    assert of_one == {"model_version_status": [state("1")]}


def test_the_signature_is_reported(client: FlaskClient) -> None:
    metadata = client.get("/v1/models/shade/metadata").json
    assert metadata is not None
    assert metadata["model_spec"] == {"name": "shade", "signature_name": "", "version": "2"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    image = signature["inputs"]["image"]
    assert image["dtype"] == "DT_UINT8"
    assert [each["size"] for each in image["tensor_shape"]["dim"]] == ["-1", "8", "6", "1"]
    assert signature["outputs"]["probabilities"]["dtype"] == "DT_FLOAT"
    one = client.get("/v1/models/shade/versions/1/metadata").json
    assert one is not None
    assert one["model_spec"]["version"] == "1"


BAD_BODIES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "either 'instances' or 'inputs'"),
    "both": ({"instances": [DARK], "inputs": [DARK]}, "either 'instances' or 'inputs'"),
    "not a list": ({"instances": DARK}, "not a list"),
    "null": ({"instances": None}, "not a list"),
    "one file as a column": ({"inputs": DARK}, "not a list"),
    "empty": ({"instances": []}, "no image"),
    "signature": ({"instances": [DARK], "signature_name": "a"}, "Known: 'serving_default'"),
    "text": ({"instances": ["7.png"]}, "An instance is not an image"),
    "number": ({"instances": [7]}, "An instance is not an image"),
    "name": ({"instances": [{"pixels": DARK}]}, "'image' alone"),
    "two names": ({"instances": [{"image": DARK, "image_bytes": DARK}]}, "'image' alone"),
    "no name": ({"instances": [{}]}, "'image' alone"),
    "nested names": ({"instances": [{"image": {"image": DARK}}]}, "An instance is not an image"),
    "more beside": ({"instances": [{**DARK, "label": 1}]}, "An instance is not an image"),
    "column's name": ({"inputs": {"pixels": [DARK]}}, "'image' alone"),
    "shape": ({"instances": [[[0] * 48]]}, "not nested like their shape"),
    "few pixels": ({"instances": [[0] * 47]}, "47 numbers. Expected 48"),
    "large pixel": ({"instances": [[256] * 48]}, "0 to 255"),
    "no base64": ({"instances": [{"b64": "%"}]}, "not base64"),
    "no string": ({"instances": [{"b64": 7}]}, "not base64"),
    "bad file": ({"instances": [DARK, {"b64": "AAAA"}]}, "Image 2 of 2: The bytes are not"),
}


@pytest.mark.parametrize(("body", "message"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_is_refused(client: FlaskClient, body: dict[str, Any], message: str) -> None:
    assert message in sentence(client.post(PREDICT, json=body))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_a_json_object_is_refused(client: FlaskClient, body: bytes) -> None:
    assert "JSON" in sentence(client.post(PREDICT, data=body))


def test_too_much_is_refused(client: FlaskClient) -> None:
    assert "at most 64" in sentence(predict(client, instances=[DARK] * 65), 413)
    assert "at most 3072 numbers" in sentence(predict(client, instances=[[0] * 50 * 64]), 413)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v1/models/cats:predict", 404, "Known models: shade, tint."),
        ("POST", "/v1/models/shade/versions/9:predict", 404, "no version 9"),
        ("POST", "/v1/models/shade/versions/new:predict", 404, "no version 'new'"),
        ("POST", "/v1/models/shade:classify", 405, "does not accept POST"),
        ("GET", "/v1/models/cats", 404, "Known models: shade, tint."),
        ("GET", "/v1/models/shade/versions/9", 404, "no version 9"),
        ("GET", "/v1/models", 404, "No route '/v1/models'."),
    ],
)
def test_a_wrong_request_gets_its_error(
    client: FlaskClient, method: str, path: str, status: int, message: str
) -> None:
    assert message in sentence(client.open(path, method=method, data=b"{}"), status)


def test_a_request_is_counted_like_any_other(client: FlaskClient, service: Service) -> None:
    predict(client, instances=[DARK])
    page = service.metrics.page().decode()
    route = 'route="/v1/models/<name>:predict"'
    assert f'convserve_requests_total{{method="POST",{route},status="200"}} 1.0' in page
    assert 'convserve_images_total{label="dark",model="shade",version="2"} 1.0' in page


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("V1Status", "/v1/models/shade"),
        ("V1Model", "/v1/models/shade/metadata"),
        ("V1Answer", PREDICT),
    ],
)
def test_answers_have_the_described_shape(client: FlaskClient, schema: str, path: str) -> None:
    described = json.loads(client.get("/openapi.json").text)
    body = {"instances": [DARK]}
    answer = client.post(path, json=body) if path == PREDICT else client.get(path)
    components = {"components": described["components"]}
    jsonschema.validate(answer.json, {"$ref": f"#/components/schemas/{schema}", **components})
    jsonschema.validate(body, {"$ref": "#/components/schemas/V1Request", **components})


SPEC, LIMITS = PixelSpec(2, 2, 1, "stretch"), Limits(body_bytes=10_000, images=3)
IMAGE = likely({"b64": "AAAA"}, [1, 2, 3, 4], [[[1], [2]], [[3], [4]]])
ROWS = st.lists(IMAGE | st.fixed_dictionaries({"image": IMAGE}), max_size=4) | ANYTHING
ROW_BODIES = st.fixed_dictionaries(
    {}, optional={"instances": ROWS, "signature_name": likely("serving_default", "")}
)
COLUMN_BODIES = st.fixed_dictionaries({"inputs": ROWS | st.fixed_dictionaries({"image": ROWS})})


def parsed(data: bytes) -> tfserving.Predict | None:
    """Parse a body; return None if it is refused."""
    try:
        return tfserving.parse(data, SPEC, LIMITS)
    except (BadRequest, RequestTooLarge):
        return None


@settings(deadline=None)
@given(ROW_BODIES | COLUMN_BODIES | ANYTHING)
def test_any_json_is_accepted_or_refused(body: Any) -> None:
    if asked := parsed(json.dumps(body).encode()):
        assert 1 <= len(asked.images) <= LIMITS.images


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused(data: bytes) -> None:
    parsed(data)


@pytest.fixture
def routed(tmp_path: Path) -> FlaskClient:
    """Serve a model whose version 2 has a label and is the default."""
    for version in (1, 2):
        publish(tmp_path, version=version)
    rule = {"default": 1, "labels": {"next": 2}, "canary": {"version": "next", "share": 1}}
    (tmp_path / "routing.json").write_text(json.dumps({"shade": rule}))
    return create_app(Settings(models=tmp_path)).test_client()


@pytest.mark.parametrize(
    ("path", "version"), [("", 2), ("/versions/1", 1), ("/labels/next", 2), ("/versions/next", 2)]
)
def test_a_path_is_routed_like_any_other(routed: FlaskClient, path: str, version: int) -> None:
    assert light(predict(routed, f"/v1/models/shade{path}:predict", instances=[DARK])) == [0.039]
    page = routed.get("/metrics").text
    counted = f'convserve_images_total{{label="dark",model="shade",version="{version}"}} 1.0'
    assert counted in page


def test_a_label_has_a_state_and_a_signature(routed: FlaskClient) -> None:
    of_label = routed.get("/v1/models/shade/labels/next").json
    assert of_label == {"model_version_status": [state("2")]}
    assert routed.get("/v1/models/shade/labels/next/metadata").status_code == 200
    message = sentence(routed.get("/v1/models/shade/labels/old"), 404)
    assert "no version 'old'" in message
    assert "Known labels: next" in message
