"""The routes, in process: every body, every answer, every error."""

import base64
import contextlib
import io
import json
import math
import time
import tracemalloc
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate
from werkzeug.wrappers import Request

from serving import uploads
from serving.api import Service
from serving.batcher import SLICE
from serving.errors import RequestTooLarge
from tests.serving.samples import assert_error, multipart, png

DARK, LIGHT = png(10), png(240)


def post(client: FlaskClient, path: str, data: bytes, kind: str = "image/png", **more: Any) -> Any:
    return client.post(path, data=data, content_type=kind, **more)


def form(*files: bytes, **fields: str) -> dict[str, Any]:
    return {"image": [(io.BytesIO(file), "a.png") for file in files], **fields}


def as_json(*files: bytes) -> dict[str, list[str]]:
    return {"images": [base64.b64encode(file).decode() for file in files]}


def labels(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [each.get("label", "error") for each in answer.json["predictions"]]


def test_a_file_is_answered_in_the_documented_shape(client: FlaskClient) -> None:
    assert post(client, "/predict/shade", LIGHT).json == {
        "model": "shade",
        "version": 2,
        "predictions": [
            {
                "label": "light",
                "probability": 0.941176,
                "top": [
                    {"label": "light", "probability": 0.941176},
                    {"label": "dark", "probability": 0.058824},
                ],
            }
        ],
    }


@pytest.mark.parametrize("kind", ["image/png", "image/*", "application/octet-stream"])
def test_a_file_may_come_as_any_kind_of_image(client: FlaskClient, kind: str) -> None:
    assert labels(post(client, "/predict/tint", DARK, kind)) == ["dark"]


def test_a_form_may_hold_many_images(client: FlaskClient) -> None:
    assert labels(client.post("/predict/shade", data=form(DARK, LIGHT))) == ["dark", "light"]


@pytest.mark.parametrize("short", range(20, 180, 20))
def test_a_form_is_read_wherever_its_pieces_end(client: FlaskClient, short: int) -> None:
    body, kind = multipart(DARK + bytes(64 * 1024 - len(DARK) - short), 4)
    assert labels(client.post("/predict/shade", data=body, content_type=kind)) == ["dark"] * 4


def test_json_may_hold_many_images(client: FlaskClient) -> None:
    assert labels(client.post("/predict/shade", json=as_json(DARK, LIGHT))) == ["dark", "light"]


def test_json_may_hold_data_urls(client: FlaskClient) -> None:
    url = "data:image/png;base64," + base64.b64encode(LIGHT).decode()
    assert labels(client.post("/predict/shade", json={"images": [url]})) == ["light"]


def test_more_images_than_one_inference_keep_their_order(client: FlaskClient) -> None:
    files = [LIGHT if i % 3 else DARK for i in range(2 * SLICE + 1)]
    expected = ["light" if i % 3 else "dark" for i in range(2 * SLICE + 1)]
    assert labels(client.post("/predict/shade", json=as_json(*files))) == expected


@pytest.mark.parametrize(
    ("path", "fields", "model"),
    [
        ("/predict?model=tint", {}, "tint"),
        ("/predict", {"model": "tint"}, "tint"),
        ("/predict?model=tint", {"model": "tint"}, "tint"),
        ("/predict/shade?model=shade", {"model": "shade"}, "shade"),
    ],
)
def test_the_model_is_named_by_path_query_or_form(
    client: FlaskClient, path: str, fields: dict[str, str], model: str
) -> None:
    answer = client.post(path, data=form(DARK, **fields))
    assert answer.json is not None
    assert answer.json["model"] == model


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/predict/shade?model=tint", {}),
        ("/predict/shade", {"model": "tint"}),
        ("/predict?model=shade", {"model": "tint"}),
    ],
)
def test_two_models_in_one_request_are_refused(
    client: FlaskClient, path: str, fields: dict[str, str]
) -> None:
    answer = client.post(path, data=form(DARK, **fields))
    assert "two models, 'shade' and 'tint'" in assert_error(answer, 400, "bad_request")


def test_the_version_can_be_chosen(client: FlaskClient) -> None:
    assert post(client, "/predict/shade?version=1", DARK).json["version"] == 1


@pytest.mark.parametrize(("top", "count"), [("", 2), ("?top=1", 1), ("?top=9", 2)])
def test_top_bounds_the_labels_listed(client: FlaskClient, top: str, count: int) -> None:
    assert len(post(client, f"/predict/shade{top}", DARK).json["predictions"][0]["top"]) == count


@pytest.mark.parametrize(
    ("brightness", "coverage", "expected"),
    [
        (10, "0.9", ["dark"]),
        (250, ".90", ["light"]),
        (128, "0.9", []),
        (128, "0.99", ["light", "dark"]),
        (240, "0.99", ["light", "dark"]),
        (250, "0.99", ["light"]),
    ],
)
@pytest.mark.parametrize("top", ["", "&top=1"])
def test_a_set_holds_every_label_that_the_coverage_asks_for(
    client: FlaskClient, brightness: int, coverage: str, expected: list[str], top: str
) -> None:
    answer = post(client, f"/predict/shade?coverage={coverage}{top}", png(brightness))
    assert answer.json["predictions"][0]["set"] == expected


def test_of_many_images_each_has_its_set_and_a_bad_one_its_error(client: FlaskClient) -> None:
    answer = client.post("/predict/shade?coverage=0.9", data=form(DARK, b"text", LIGHT))
    assert answer.json is not None
    sets = [each.get("set", "error") for each in answer.json["predictions"]]
    assert sets == [["dark"], "error", ["light"]]


@pytest.mark.parametrize("coverage", ["", "high", "1", "0", "95", "-0.5", "1e-1", "0.9 ", "nan"])
def test_a_coverage_that_is_no_share_is_refused(client: FlaskClient, coverage: str) -> None:
    answer = client.post(
        "/predict/shade", query_string={"coverage": coverage}, data=DARK, content_type="image/png"
    )
    assert "Expected a share, like 0.95." in assert_error(answer, 400, "bad_request")


def test_a_coverage_that_was_not_calibrated_is_told_the_known_ones(client: FlaskClient) -> None:
    answer = post(client, "/predict/shade?coverage=0.95", DARK)
    assert assert_error(answer, 400, "bad_request") == (
        "shade 2 has no prediction sets of coverage 0.95. Known coverages: 0.9, 0.99."
    )
    answer = client.post("/predict?coverage=0.9", data=form(DARK, model="tint"))
    assert assert_error(answer, 400, "bad_request") == (
        "tint 1 has no prediction sets of coverage 0.9."
        " Known coverages: none; it was published without thresholds."
    )


def test_of_many_images_a_bad_one_fails_alone_in_its_place(client: FlaskClient) -> None:
    answer = client.post("/predict/shade", data=form(DARK, b"text", LIGHT, b""))
    assert labels(answer) == ["dark", "error", "light", "error"]
    assert answer.json is not None
    assert answer.json["predictions"][1]["error"]["code"] == "invalid_image"


def test_of_many_images_malformed_base64_fails_alone(client: FlaskClient) -> None:
    images = ["!", base64.b64encode(LIGHT).decode(), 7]
    assert labels(client.post("/predict/shade", json={"images": images})) == [
        "error",
        "light",
        "error",
    ]


def test_many_images_that_are_all_bad_are_all_answered(client: FlaskClient) -> None:
    assert labels(client.post("/predict/shade", json=as_json(b"a", b"b"))) == ["error", "error"]


BAD_BODIES = [
    pytest.param(b"", "image/png", 400, "bad_request", id="empty"),
    pytest.param(b"", None, 400, "bad_request", id="empty without a type"),
    pytest.param(b"hello", "image/png", 400, "invalid_image", id="text as image"),
    pytest.param(DARK[: len(DARK) // 2], "image/png", 400, "invalid_image", id="half a PNG"),
    pytest.param(DARK, "text/plain", 415, "unsupported_media", id="text/plain"),
    pytest.param(DARK, None, 415, "unsupported_media", id="no type"),
    pytest.param(
        b"image=1", "application/x-www-form-urlencoded", 415, "unsupported_media", id="form"
    ),
    pytest.param(b"{", "application/json", 400, "bad_request", id="malformed JSON"),
    pytest.param(b"\xff", "application/json", 400, "bad_request", id="JSON that is no text"),
    pytest.param(b"[" * 100_000, "application/json", 400, "bad_request", id="deep JSON"),
    pytest.param(b"[]", "application/json", 400, "bad_request", id="JSON without images"),
    pytest.param(b'{"images": []}', "application/json", 400, "bad_request", id="no image"),
    pytest.param(
        b'{"images": [""], "model": "tint"}', "application/json", 400, "bad_request", id="member"
    ),
    pytest.param(b'{"images": ["*"]}', "application/json", 400, "invalid_image", id="no base64"),
    pytest.param(
        b'{"images": ["\xc3\xa9"]}', "application/json", 400, "invalid_image", id="accent"
    ),
    pytest.param(b"x", "multipart/form-data", 400, "bad_request", id="no boundary"),
    pytest.param(b"x", "multipart/form-data; boundary=b", 400, "bad_request", id="no parts"),
    pytest.param(b" " * 1_000_001, "image/png", 413, "request_too_large", id="too many bytes"),
    pytest.param(png(9, size=(1001, 1000)), "image/png", 413, "image_too_large", id="pixels"),
]


@pytest.mark.parametrize(("body", "kind", "status", "code"), BAD_BODIES)
def test_a_bad_body_gets_its_error(
    client: FlaskClient, body: bytes, kind: str, status: int, code: str
) -> None:
    assert_error(post(client, "/predict/shade", body, kind), status, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/predict/cats", 404, "unknown_model"),
        ("POST", "/predict?model=cats", 404, "unknown_model"),
        ("POST", "/predict", 400, "bad_request"),
        ("POST", "/predict/shade?version=7", 404, "unknown_version"),
        ("POST", "/predict/shade?version=0", 400, "bad_request"),
        ("POST", "/predict/shade?version=²", 400, "bad_request"),
        ("POST", "/predict/shade?top=-1", 400, "bad_request"),
        ("POST", "/predict/shade?top=" + "9" * 5000, 400, "bad_request"),
        ("POST", "/predict/shade?verison=1", 400, "bad_request"),
        ("GET", "/predict/shade", 405, "method_not_allowed"),
        ("DELETE", "/models", 405, "method_not_allowed"),
        ("GET", "/models/cats", 404, "unknown_model"),
        ("GET", "/nothing", 404, "unknown_path"),
        ("GET", "//models", 404, "unknown_path"),
        ("GET", "/models/", 404, "unknown_path"),
    ],
)
def test_a_wrong_request_gets_its_error(
    client: FlaskClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.open(path, method=method, data=DARK, content_type="image/png")
    assert_error(answer, status, code)


def test_messages_say_what_is_known(client: FlaskClient) -> None:
    message = assert_error(post(client, "/predict/cats", DARK), 404, "unknown_model")
    assert message == "No model named 'cats'. Known models: shade, tint."
    message = assert_error(post(client, "/predict/shade?version=7", DARK), 404, "unknown_version")
    assert message == "Model 'shade' has no version 7. Known versions: 1, 2."


def test_a_wrong_method_is_told_the_right_one(client: FlaskClient) -> None:
    assert "POST" in client.get("/predict/shade").headers["Allow"]


@pytest.mark.parametrize("count", [65, 5000])
def test_too_many_parts_are_refused(client: FlaskClient, count: int) -> None:
    body, kind = multipart(b"x", count)
    assert_error(post(client, "/predict/shade", body, kind), 413, "request_too_large")


@pytest.mark.parametrize(
    "images", [["!"] * 65, ["data:,!"] * 65, [0] * 300_000], ids=["texts", "URLs", "numbers"]
)
def test_too_many_images_in_json_are_refused_before_they_are_decoded(
    client: FlaskClient, images: list[Any]
) -> None:
    answer = client.post("/predict/shade", json={"images": images})
    assert "at most 64" in assert_error(answer, 413, "request_too_large")


def test_as_many_images_as_promised_are_taken_as_data_urls(client: FlaskClient) -> None:
    url = "data:image/png;base64," + base64.b64encode(DARK).decode()
    assert len(labels(client.post("/predict/shade", json={"images": [url] * 64}))) == 64


def test_a_list_that_is_too_long_is_never_parsed() -> None:
    body = b'{"images": [' + b"0," * 8_000_000 + b"0]}"
    request = Request.from_values(method="POST", data=body, content_type="application/json")
    tracemalloc.start()
    with pytest.raises(RequestTooLarge):
        uploads.read(request, uploads.Limits(body_bytes=len(body), images=64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * len(body)


def test_as_many_images_as_promised_are_taken(client: FlaskClient) -> None:
    assert len(labels(client.post("/predict/shade", data=form(*[DARK] * 64)))) == 64


@pytest.mark.parametrize("more", [{"imgae": (io.BytesIO(DARK), "a.png")}, {"version": "1"}])
def test_a_part_of_a_form_that_is_not_known_is_refused(
    client: FlaskClient, more: dict[str, Any]
) -> None:
    answer = client.post("/predict/shade", data=form(DARK) | more)
    assert f"unknown part '{next(iter(more))}'" in assert_error(answer, 400, "bad_request")


def test_a_form_without_an_image_is_told_so(client: FlaskClient) -> None:
    answer = client.post(
        "/predict", data={"model": "shade"}, content_type="multipart/form-data; boundary=b"
    )
    assert "no file part named 'image'" in assert_error(answer, 400, "bad_request")


def test_a_bug_is_answered_without_its_details(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/bug", view_func=lambda: {"a": "b"}["secret"])
    assert "secret" not in assert_error(client.get("/bug"), 500, "internal_error")


def test_a_full_queue_answers_503(client: FlaskClient, service: Service) -> None:
    with service.batcher.images(service.batcher.max_images):
        answer = post(client, "/predict/shade", DARK)
    assert_error(answer, 503, "overloaded")
    assert answer.headers["Retry-After"] == "1"
    assert labels(post(client, "/predict/shade", DARK)) == ["dark"]


def status_and_rest(client: FlaskClient, path: str) -> tuple[int, bytes]:
    body = io.BytesIO(DARK)
    answer = client.post(
        path,
        input_stream=body,
        content_length=len(DARK),
        environ_overrides={"wsgi.input_terminated": True},
    )
    return answer.status_code, body.read()


def test_a_refused_body_is_read_unless_places_are_short(
    client: FlaskClient, service: Service
) -> None:
    assert status_and_rest(client, "/nothing") == (404, b"")
    with contextlib.ExitStack() as taken:
        for _ in range(service.batcher.max_requests):
            taken.enter_context(service.batcher.request())
        assert status_and_rest(client, "/predict/shade") == (503, DARK)


def test_a_request_past_its_deadline_answers_504(client: FlaskClient, service: Service) -> None:
    batcher = service.batcher
    for lane in (batcher.decodes, batcher.inferences):
        with lane.turn("test", deadline=math.inf, measure=lambda *_: None):
            answer = post(client, "/predict/shade", DARK, headers={"X-Request-Timeout-Ms": "20"})
        assert_error(answer, 504, "deadline_exceeded")
        assert labels(post(client, "/predict/shade", DARK)) == ["dark"]


class Slow(io.BytesIO):
    """A body that takes its time."""

    def read(self, size: int | None = -1) -> bytes:
        time.sleep(0.05)
        return super().read(size)


def test_a_body_that_took_longer_than_the_deadline_answers_504(client: FlaskClient) -> None:
    answer = client.post(
        "/predict/shade",
        input_stream=Slow(DARK),
        content_length=len(DARK),
        content_type="image/png",
        headers={"X-Request-Timeout-Ms": "20"},
    )
    assert_error(answer, 504, "deadline_exceeded")


def test_a_malformed_timeout_is_refused(client: FlaskClient) -> None:
    answer = post(client, "/predict/shade", DARK, headers={"X-Request-Timeout-Ms": "soon"})
    assert "X-Request-Timeout-Ms" in assert_error(answer, 400, "bad_request")


def test_a_draining_replica_is_alive_but_not_ready(client: FlaskClient, service: Service) -> None:
    assert client.get("/readyz").json == {"status": "ready"}
    service.draining.set()
    assert_error(client.get("/readyz"), 503, "draining")
    assert client.get("/healthz").json == {"status": "alive"}
    assert labels(post(client, "/predict/shade", DARK)) == ["dark"]


def test_the_models_describe_themselves(client: FlaskClient) -> None:
    assert client.get("/models/tint").json == {
        "name": "tint",
        "default_version": 1,
        "versions": [
            {
                "version": 1,
                "state": "ready",
                "labels": ["dark", "light"],
                "input": {"height": 8, "width": 6, "channels": 3, "fit": "stretch"},
                "provider": "CPUExecutionProvider",
                "title": "Dark or light",
                "metrics": {"accuracy": 1.0, "images": 2},
            }
        ],
    }
    listed = client.get("/models").json
    assert listed is not None
    assert [each["name"] for each in listed["models"]] == ["shade", "tint"]
    assert listed["models"][0]["default_version"] == 2


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1", True), ("a b", False), ("x" * 129, False), ("", False)]
)
def test_a_sane_request_id_is_kept(client: FlaskClient, sent: str, kept: bool) -> None:
    answer = client.get("/healthz", headers={"X-Request-ID": sent})
    assert (answer.headers["X-Request-ID"] == sent) is kept


def test_the_description_is_valid_and_names_every_route(app: Flask, client: FlaskClient) -> None:
    described = client.get("/openapi.json").json
    assert described is not None
    validate(described)
    served = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert served == {(path, method) for path, ops in described["paths"].items() for method in ops}


@pytest.mark.parametrize(
    ("schema", "path", "files"),
    [
        ("Answer", "/predict/shade", form(DARK, b"bad")),
        ("Answer", "/predict/shade?coverage=0.9", form(DARK, b"bad")),
        ("Error", "/predict/none", form(DARK)),
        ("Model", "/models/shade", None),
    ],
)
def test_answers_have_the_described_shape(
    client: FlaskClient, schema: str, path: str, files: Any
) -> None:
    described = json.loads(client.get("/openapi.json").text)
    answer = client.post(path, data=files) if files else client.get(path)
    jsonschema.validate(
        answer.json,
        {"$ref": f"#/components/schemas/{schema}", "components": described["components"]},
    )
