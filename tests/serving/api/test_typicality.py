"""Typicality: answered, marked and counted where a version has it, and nowhere else."""

import asyncio
import struct
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from flask import Flask
from flask.testing import FlaskClient

from serving.app import SERVICE, create_app
from serving.settings import Settings
from tests.serving.api.test_openinference import HEAD, files, infer, sentence
from tests.serving.app.test_views import form, post
from tests.serving.front import Client
from tests.serving.monitoring.test_metrics import value
from tests.serving.samples import assert_error, png, publish

DARKEST, DARK, LIGHT = png(2), png(10), png(240)  # of typicality 0.0078, 0.0392, 0.9412


@pytest.fixture
def typical_app(tmp_path: Path) -> Flask:
    """Return an application of two models, of which ``shade`` has typicality: its brightness."""
    folder = tmp_path / "models"
    publish(folder, typical=1.0)
    publish(folder, name="tint", shape=("N", 8, 6, 3))
    return create_app(Settings(models=folder))


@pytest.fixture(params=["Flask", "front"])
def asked(typical_app: Flask, request: pytest.FixtureRequest) -> FlaskClient | Client:
    return typical_app.test_client() if request.param == "Flask" else Client(typical_app)


def predictions(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json["predictions"]
    return found


def outputs_of(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json["outputs"]
    return found


def test_each_prediction_has_its_typicality(asked: Any) -> None:
    found = predictions(asked.post("/predict/shade", data=form(DARKEST, b"bad", LIGHT)))
    assert [each.get("typicality") for each in found] == [0.0078, None, 0.9412]
    assert list(found[0]) == ["label", "probability", "top", "typicality", "id"]


@pytest.mark.parametrize(
    ("typical", "marks"),
    [
        ("0", [None, None, None]),
        ("0.01", [True, None, None]),
        (".5", [True, True, None]),
        ("1", [True, True, True]),
        ("1.0", [True, True, True]),
    ],
)
def test_what_is_less_typical_than_asked_is_marked(
    asked: Any, typical: str, marks: list[bool | None]
) -> None:
    answer = asked.post(f"/predict/shade?typical={typical}", data=form(DARKEST, DARK, LIGHT))
    assert [each.get("unusual") for each in predictions(answer)] == marks


@pytest.mark.parametrize(
    "typical", ["", "low", "1.01", "2", "-0.5", "1e-1", "0.9 ", "nan", "\u0660"]
)
def test_a_bound_outside_0_to_1_is_refused(asked: Any, typical: str) -> None:
    answer = asked.post("/predict/shade", query_string={"typical": typical}, data=form(DARK))
    assert "Expected a share, like 0.01." in assert_error(answer, 400, "bad_request")


def test_a_version_without_typicality_answers_as_before(asked: Any) -> None:
    (found,) = predictions(post(asked, "/predict/tint", DARK))
    assert list(found) == ["label", "probability", "top", "id"]
    answer = post(asked, "/predict/tint?typical=0.01", DARK)
    message = "tint 1 has no typicality. It was published without."
    assert assert_error(answer, 400, "bad_request") == message


def test_images_below_a_hundredth_are_counted_whatever_is_asked(asked: Any) -> None:
    start = asked.get("/metrics").text
    shade = {"model": "shade", "version": "1"}
    assert value(start, "convserve_unusual_images_total", **shade) == 0
    assert value(start, "convserve_typicality_count", **shade) == 0
    assert value(start, "convserve_baseline_typicality_share", bin="1.0", **shade) == 0.1
    asked.post("/predict/shade", data=form(DARKEST, DARK, LIGHT))
    asked.post("/predict/shade?typical=0.5", data=form(DARKEST, DARK))
    page = asked.get("/metrics").text
    assert value(page, "convserve_unusual_images_total", **shade) == 2
    counts = {"0.01": 2, "0.05": 4, "0.1": 4, "0.9": 4, "1.0": 5, "+Inf": 5}
    for edge, count in counts.items():
        assert value(page, "convserve_typicality_bucket", le=edge, **shade) == count
    for name in ("unusual_images_total", "typicality_count", "baseline_typicality_share"):
        assert f'convserve_{name}{{model="tint"' not in page
    since = asked.get("/models/shade/quality").json["versions"][0]["since_start"]
    assert since["typicality_psi"] == 7.0456  # 0.7 ln 8 + 0.1 ln 2 + 8 · 0.0999 ln 1000
    assert since["confidence_psi"] == 0


def test_a_typicality_that_is_no_share_is_answered_with_500(tmp_path: Path) -> None:
    publish(tmp_path / "models", typical=2.0)
    client = create_app(Settings(models=tmp_path / "models")).test_client()
    assert_error(post(client, "/predict/shade", LIGHT), 500, "internal_error")
    assert value(client.get("/metrics").text, "convserve_images_total") == 0
    assert value(client.get("/metrics").text, "convserve_typicality_count") == 0


def test_a_golden_image_is_right_however_typical_it_is(tmp_path: Path) -> None:
    publish(tmp_path / "models", typical=1.5)
    service = create_app(Settings(models=tmp_path / "models")).extensions[SERVICE]
    image = tmp_path / "dark-1.png"
    image.write_bytes(png(120))  # its typicality, 0.71, exceeds its probability, 0.53
    asyncio.run(service.golden.replay(service.repository.get("shade", 1), image))
    page = service.metrics.page().decode()
    assert value(page, "convserve_golden_images_total", result="right") == 1
    assert value(page, "convserve_typicality_count") == 0  # a replay is not a prediction


def test_open_inference_answers_it_where_outputs_names_it(asked: Any) -> None:
    described = asked.get("/v2/models/shade").json["outputs"]
    assert described[2:] == [{"name": "typicality", "datatype": "FP32", "shape": [-1]}]
    outputs = [{"name": "typicality"}, {"name": "probabilities"}]
    found = outputs_of(infer(asked, files(DARK, LIGHT), outputs=outputs))
    assert [each["name"] for each in found] == ["typicality", "probabilities"]
    assert (found[0]["datatype"], found[0]["shape"]) == ("FP32", [2])
    assert found[0]["data"] == pytest.approx([10 / 255, 240 / 255])
    assert found[1]["data"][1::2] == pytest.approx([10 / 255, 240 / 255])
    plain = outputs_of(infer(asked, files(DARK)))
    assert [each["name"] for each in plain] == ["probabilities", "id"]


def test_open_inference_answers_it_as_a_binary_tensor(asked: Any) -> None:
    outputs = [{"name": "typicality", "parameters": {"binary_data": True}}]
    answer = infer(asked, files(DARK, LIGHT), outputs=outputs)
    raw = answer.data[int(answer.headers[HEAD]) :]
    assert struct.unpack("<2f", raw) == pytest.approx([10 / 255, 240 / 255])


def test_open_inference_refuses_what_the_model_has_not(asked: Any) -> None:
    path, outputs = "/v2/models/tint/infer", [{"name": "typicality"}]
    assert len(asked.get("/v2/models/tint").json["outputs"]) == 2
    answer = infer(asked, files(DARK), path=path, outputs=outputs)
    assert "Expected 'probabilities' or 'id', each once." in sentence(answer)
    answer = infer(asked, files(DARK), outputs=[*outputs, *outputs])
    expected = "Expected 'probabilities' or 'id' or 'typicality', each once."
    assert expected in sentence(answer)


def test_tensorflow_serving_is_unchanged(asked: Any) -> None:
    body = {"instances": [{"b64": files(DARK)["data"][0]}]}
    answer = asked.post("/v1/models/shade:predict", json=body).json
    assert answer.keys() == {"predictions", "ids"}
    assert answer["predictions"] == [pytest.approx([245 / 255, 10 / 255])]


def test_answers_have_the_described_shape(asked: Any) -> None:
    components = asked.get("/openapi.json").json["components"]
    answer = asked.post("/predict/shade?typical=0.01", data=form(DARKEST, LIGHT))
    outputs = [{"name": "typicality"}]
    for shape, body in {
        "Answer": answer.json,
        "V2Model": asked.get("/v2/models/shade").json,
        "V2Answer": infer(asked, files(DARK), outputs=outputs).json,
        "Quality": asked.get("/models/shade/quality").json,
    }.items():
        described = {"$ref": f"#/components/schemas/{shape}", "components": components}
        jsonschema.validate(body, described)
    properties = components["schemas"]["Prediction"]["properties"]
    assert {"typicality", "unusual"} <= properties.keys()
