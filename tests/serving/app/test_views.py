"""The routes, in process: every body, every answer, every error."""

import base64
import contextlib
import io
import json
import math
import re
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate
from PIL import Image

from serving.api import body as uploads
from serving.api.pipeline import best
from serving.app import create_app
from serving.app.service import Service
from serving.errors import RequestTooLarge
from serving.inference.batcher import MAX_BATCH
from serving.inference.images import pixels
from serving.settings import Settings
from tests.serving.monitoring.test_metrics import value
from tests.serving.samples import assert_error, multipart, png, publish

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
    found = post(client, "/predict/shade", LIGHT).json
    assert found
    assert re.fullmatch("[A-Za-z0-9_-]{60,100}", found["predictions"][0].pop("id"))
    assert found == {
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
def test_a_file_may_have_any_image_content_type(client: FlaskClient, kind: str) -> None:
    assert labels(post(client, "/predict/tint", DARK, kind)) == ["dark"]


def test_a_form_may_hold_many_images(client: FlaskClient) -> None:
    assert labels(client.post("/predict/shade", data=form(DARK, LIGHT))) == ["dark", "light"]


def test_a_form_may_name_no_files(client: FlaskClient) -> None:
    body, kind = multipart(DARK, LIGHT)
    body = body.replace(b'; filename="a"', b"")
    assert labels(client.post("/predict/shade", data=body, content_type=kind)) == ["dark", "light"]


def test_the_model_of_a_form_need_not_be_text(client: FlaskClient) -> None:
    body, kind = multipart(DARK)
    field = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n\xff\r\n'
    answer = client.post("/predict", data=field + body, content_type=kind)
    assert_error(answer, 404, "unknown_model")


@pytest.mark.parametrize("short", range(20, 180, 20))
def test_a_form_is_read_wherever_its_pieces_end(client: FlaskClient, short: int) -> None:
    body, kind = multipart(*[DARK + bytes(64 * 1024 - len(DARK) - short)] * 4)
    assert labels(client.post("/predict/shade", data=body, content_type=kind)) == ["dark"] * 4


def test_json_may_hold_many_images(client: FlaskClient) -> None:
    assert labels(client.post("/predict/shade", json=as_json(DARK, LIGHT))) == ["dark", "light"]


def test_json_may_hold_data_urls(client: FlaskClient) -> None:
    url = "data:image/png;base64," + base64.b64encode(LIGHT).decode()
    assert labels(client.post("/predict/shade", json={"images": [url]})) == ["light"]


def test_more_images_than_one_inference_keep_their_order(client: FlaskClient) -> None:
    files = [LIGHT if i % 3 else DARK for i in range(2 * MAX_BATCH + 1)]
    expected = ["light" if i % 3 else "dark" for i in range(2 * MAX_BATCH + 1)]
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


@pytest.mark.parametrize(
    ("path", "named", "found"),
    [
        ("/predict", ["shade", "tint"], "more than one field 'model'"),
        ("/predict?model=shade&model=tint", [], "A parameter is given more than once."),
        ("/predict/shade?version=1&version=2", [], "A parameter is given more than once."),
    ],
)
def test_a_repeated_parameter_is_refused(
    client: FlaskClient, path: str, named: list[str], found: str
) -> None:
    answer = client.post(path, data={**form(DARK), "model": named})
    assert found in assert_error(answer, 400, "bad_request")


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
def test_a_set_holds_every_label_that_the_coverage_needs(
    client: FlaskClient, brightness: int, coverage: str, expected: list[str], top: str
) -> None:
    answer = post(client, f"/predict/shade?coverage={coverage}{top}", png(brightness))
    assert answer.json["predictions"][0]["set"] == expected


def test_each_of_many_images_has_its_set_or_its_error(client: FlaskClient) -> None:
    answer = client.post("/predict/shade?coverage=0.9", data=form(DARK, b"text", LIGHT))
    assert answer.json is not None
    sets = [each.get("set", "error") for each in answer.json["predictions"]]
    assert sets == [["dark"], "error", ["light"]]


@pytest.mark.parametrize("coverage", ["", "high", "1", "0", "95", "-0.5", "1e-1", "0.9 ", "nan"])
def test_a_coverage_outside_0_to_1_is_refused(client: FlaskClient, coverage: str) -> None:
    answer = client.post(
        "/predict/shade", query_string={"coverage": coverage}, data=DARK, content_type="image/png"
    )
    assert "Expected a share, like 0.95." in assert_error(answer, 400, "bad_request")


def test_the_error_of_an_unknown_coverage_lists_the_known_ones(client: FlaskClient) -> None:
    answer = post(client, "/predict/shade?coverage=0.95", DARK)
    assert assert_error(answer, 400, "bad_request") == (
        "shade 2 has no prediction sets of coverage 0.95. Known coverages: 0.9, 0.99."
    )
    answer = client.post("/predict?coverage=0.9", data=form(DARK, model="tint"))
    assert assert_error(answer, 400, "bad_request") == (
        "tint 1 has no prediction sets of coverage 0.9."
        " Known coverages: none; it was published without thresholds."
    )


def test_one_unreadable_image_of_many_is_an_error_in_its_place(client: FlaskClient) -> None:
    body, kind = multipart(DARK, b"text", LIGHT, b"")
    answer = client.post("/predict/shade", data=body, content_type=kind)
    assert labels(answer) == ["dark", "error", "light", "error"]
    assert answer.json is not None
    assert answer.json["predictions"][1]["error"]["code"] == "invalid_image"


def test_malformed_base64_among_many_images_is_an_error_in_its_place(client: FlaskClient) -> None:
    images = ["!", base64.b64encode(LIGHT).decode(), 7]
    assert labels(client.post("/predict/shade", json={"images": images})) == [
        "error",
        "light",
        "error",
    ]


def test_many_unreadable_images_are_all_answered(client: FlaskClient) -> None:
    assert labels(client.post("/predict/shade", json=as_json(b"a", b"b"))) == ["error", "error"]


FORM = "multipart/form-data; boundary=b"
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
    pytest.param(b"x", FORM, 400, "bad_request", id="no parts"),
    pytest.param(multipart(DARK)[0][:-8], FORM, 400, "bad_request", id="form that is cut short"),
    pytest.param(b"--b\r\n\r\nx\r\n--b--\r\n", FORM, 400, "bad_request", id="part without header"),
    pytest.param(
        b"--b\r\nX: %b\r\n\r\n\r\n--b--\r\n" % (b"x" * 5000),
        FORM,
        413,
        "request_too_large",
        id="header",
    ),
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
        ("POST", "/predict/shade?version=stable", 404, "unknown_version"),
        ("POST", "/predict/shade?version=Stable", 400, "bad_request"),
        ("POST", "/predict/shade?version=", 400, "bad_request"),
        ("POST", "/predict/shade?version=0", 400, "bad_request"),
        ("POST", "/predict/shade?version=²", 400, "bad_request"),
        ("POST", "/predict/shade?top=-1", 400, "bad_request"),
        ("POST", "/predict/shade?top=" + "9" * 5000, 400, "bad_request"),
        ("POST", "/predict/shade?verison=1", 400, "bad_request"),
        ("GET", "/predict/shade", 405, "method_not_allowed"),
        ("DELETE", "/models", 405, "method_not_allowed"),
        ("GET", "/models/cats", 404, "unknown_model"),
        ("GET", "/nothing", 404, "unknown_path"),
        ("GET", "/models//shade", 404, "unknown_path"),
        ("GET", "/models/", 404, "unknown_path"),
    ],
)
def test_a_wrong_request_gets_its_error(
    client: FlaskClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.open(path, method=method, data=DARK, content_type="image/png")
    assert_error(answer, status, code)


def test_messages_list_the_known_names(client: FlaskClient) -> None:
    message = assert_error(post(client, "/predict/cats", DARK), 404, "unknown_model")
    assert message == "No model named 'cats'. Known models: shade, tint."
    message = assert_error(post(client, "/predict/shade?version=7", DARK), 404, "unknown_version")
    assert message == "Model 'shade' has no version 7. Known versions: 1, 2."


def test_the_error_of_a_wrong_method_names_the_right_one(client: FlaskClient) -> None:
    assert "POST" in client.get("/predict/shade").headers["Allow"]


@pytest.mark.parametrize("count", [65, 5000])
def test_too_many_parts_are_refused(client: FlaskClient, count: int) -> None:
    body, kind = multipart(*[b"x"] * count)
    assert_error(post(client, "/predict/shade", body, kind), 413, "request_too_large")


@pytest.mark.parametrize(
    "images", [["!"] * 65, ["data:,!"] * 65, [0] * 300_000], ids=["texts", "URLs", "numbers"]
)
def test_too_many_images_in_json_are_refused_before_they_are_decoded(
    client: FlaskClient, images: list[Any]
) -> None:
    answer = client.post("/predict/shade", json={"images": images})
    assert "at most 64" in assert_error(answer, 413, "request_too_large")


def test_the_documented_number_of_data_urls_is_accepted(client: FlaskClient) -> None:
    url = "data:image/png;base64," + base64.b64encode(DARK).decode()
    assert len(labels(client.post("/predict/shade", json={"images": [url] * 64}))) == 64


def test_a_list_that_is_too_long_is_never_parsed() -> None:
    body = b'{"images": [' + b"0," * 8_000_000 + b"0]}"
    tracemalloc.start()
    with pytest.raises(RequestTooLarge):
        uploads.parse(body, "application/json", uploads.Limits(body_bytes=len(body), images=64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * len(body)


def test_the_documented_number_of_images_is_accepted(client: FlaskClient) -> None:
    assert len(labels(client.post("/predict/shade", data=form(*[DARK] * 64)))) == 64


@pytest.mark.parametrize("more", [{"imgae": (DARK, "a.png")}, {"version": "1"}])
def test_an_unknown_part_of_a_form_is_refused(client: FlaskClient, more: dict[str, Any]) -> None:
    opened = {
        name: (io.BytesIO(given[0]), given[1]) if isinstance(given, tuple) else given
        for name, given in more.items()
    }
    answer = client.post("/predict/shade", data=form(DARK) | opened)
    assert f"unknown part '{next(iter(more))}'" in assert_error(answer, 400, "bad_request")


@pytest.mark.parametrize("more", [b"", b'; filename="a"'])
def test_a_part_of_a_form_without_a_name_is_refused(client: FlaskClient, more: bytes) -> None:
    part = b"--b\r\nContent-Disposition: form-data" + more + b"\r\n\r\n1\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post("/predict/shade", data=part * 2 + b"--b--\r\n", headers=kind)
    assert "unknown part ''" in assert_error(answer, 400, "bad_request")


@pytest.mark.parametrize("kind", ["IMAGE/PNG", "Application/Octet-Stream"])
def test_the_case_of_a_content_type_is_ignored(client: FlaskClient, kind: str) -> None:
    answer = client.post("/predict/shade", data=DARK, headers={"Content-Type": kind})
    assert labels(answer) == ["dark"]


def test_a_large_body_of_json_is_decoded_in_pieces(client: FlaskClient) -> None:
    picture = png(255, size=(600, 700), level=0)
    assert len(picture) > 2 * uploads.PIECE
    text = base64.b64encode(picture).decode()
    assert labels(client.post("/predict/shade", json={"images": [text]})) == ["light"]
    for wrong in (f"{text[:400_000]}={text[400_001:]}", f"{text}====", f"{text[:-5]}?"):
        answer = client.post("/predict/shade", json={"images": [wrong]})
        assert "not base64" in assert_error(answer, 400, "invalid_image")


def test_a_form_without_an_image_is_refused(client: FlaskClient) -> None:
    answer = client.post(
        "/predict", data={"model": "shade"}, content_type="multipart/form-data; boundary=b"
    )
    assert "no part named 'image'" in assert_error(answer, 400, "bad_request")


@pytest.mark.parametrize(
    "row", [[math.nan, 0.5], [0.5, math.nan], [1.1, -0.1], [math.inf, 0.0], [-0.5, -0.5]]
)
def test_a_row_of_other_numbers_has_no_best_label(service: Service, row: list[float]) -> None:
    model = service.repository.get("shade", None)
    assert best(model, [0.25, 0.75]) == ("light", 0.75)
    with pytest.raises(FloatingPointError, match=r"^shade 2 returned an invalid probability\.$"):
        best(model, row)


def test_an_output_that_is_not_probabilities_is_answered_with_500(tmp_path: Path) -> None:
    publish(tmp_path / "models", white=100.0)  # P(light) of a bright picture is 2.5, P(dark) -1.5
    client = create_app(Settings(models=tmp_path / "models")).test_client()
    bright = client.post("/predict/shade", data=png(250), content_type="image/png")
    assert_error(bright, 500, "internal_error")
    dim = client.post("/predict/shade", data=png(90), content_type="image/png")
    assert dim.status_code == 200
    page = client.get("/metrics").text
    assert value(page, "convserve_confidence_sum") == pytest.approx(0.9)
    assert value(page, "convserve_images_total") == 1


def test_a_bug_is_answered_without_its_details(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/bug", view_func=lambda: {"a": "b"}["secret"])
    assert "secret" not in assert_error(client.get("/bug"), 500, "internal_error")


def test_a_full_queue_answers_503(client: FlaskClient, service: Service) -> None:
    admission = service.pipeline.admission
    with admission.images(admission.max_images):
        answer = post(client, "/predict/shade", DARK)
    assert_error(answer, 503, "overloaded")
    assert answer.headers["Retry-After"] == "1"
    assert labels(post(client, "/predict/shade", DARK)) == ["dark"]


def status_and_rest(app: Flask, path: str) -> tuple[int, bytes]:
    body = io.BytesIO(DARK)
    answer = app.test_client().post(
        path,
        input_stream=body,
        content_length=len(DARK),
        environ_overrides={"wsgi.input_terminated": True},
    )
    return answer.status_code, body.read()


def test_a_refused_body_is_read(app: Flask, service: Service) -> None:
    assert status_and_rest(app, "/nothing") == (404, b"")
    admission = service.pipeline.admission
    with contextlib.ExitStack() as taken:
        for _ in range(admission.max_requests):
            taken.enter_context(admission.request(0))
        assert status_and_rest(app, "/predict/shade") == (503, b"")


def test_a_request_past_its_deadline_answers_504(client: FlaskClient, service: Service) -> None:
    service.pipeline.batcher.running = 1  # a long inference takes the only lane
    answer = post(client, "/predict/shade", DARK, headers={"X-Request-Timeout-Ms": "300"})
    assert_error(answer, 504, "deadline_exceeded")
    service.pipeline.batcher.running = 0
    assert labels(post(client, "/predict/shade", DARK)) == ["dark"]


def test_an_unreadable_image_does_not_hide_a_missed_deadline(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    open_image = pixels.open_image

    def late(data: bytes, **more: Any) -> Image.Image:
        if len(data) > 100_000:
            assert answered.wait(60)
        return open_image(data, **more)

    monkeypatch.setattr(pixels, "open_image", late)
    headers = {"X-Request-Timeout-Ms": "300"}
    large = form(b"no image", DARK + bytes(100_000))
    answer = client.post("/predict/shade", data=large, headers=headers)
    answered.set()
    assert_error(answer, 504, "deadline_exceeded")


class Slow(io.BytesIO):
    """A slow body."""

    def read(self, size: int | None = -1) -> bytes:
        time.sleep(0.05)
        return super().read(size)


def test_a_body_that_took_longer_than_the_deadline_answers_408(app: Flask) -> None:
    answer = app.test_client().post(
        "/predict/shade",
        input_stream=Slow(DARK),
        content_length=len(DARK),
        content_type="image/png",
        headers={"X-Request-Timeout-Ms": "20"},
    )
    assert_error(answer, 408, "body_too_slow")


def test_inflating_ends_at_the_deadline(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def inflated(*_: object) -> bytes:
        assert answered.wait(60)
        return DARK

    monkeypatch.setattr(uploads, "inflated", inflated)
    headers = {"X-Request-Timeout-Ms": "50", "Content-Encoding": "gzip"}
    answer = post(client, "/predict/shade", DARK, headers=headers)
    answered.set()
    assert "body was parsed" in assert_error(answer, 504, "deadline_exceeded")


class Never(io.BytesIO):
    """A body that does not arrive before the test ends."""

    over = threading.Event()

    def read(self, _: int | None = -1) -> bytes:
        self.over.wait(600)
        return b""


def test_bodies_that_do_not_arrive_delay_no_other_request(app: Flask) -> None:
    """Send more bodies than asyncio has default threads."""
    for _ in range(40):
        answer = app.test_client().post(
            "/predict/shade",
            input_stream=Never(),
            content_length=len(DARK),
            environ_overrides={"wsgi.input_terminated": True},
            content_type="image/png",
            headers={"X-Request-Timeout-Ms": "20"},
        )
        assert_error(answer, 408, "body_too_slow")
    assert labels(post(app.test_client(), "/predict/shade", DARK)) == ["dark"]
    Never.over.set()


def test_header_fields_of_one_name_are_joined(client: FlaskClient) -> None:
    given = [("X-Request-Timeout-Ms", "2000"), ("X-Request-Timeout-Ms", "3000")]
    answer = post(client, "/predict/shade", DARK, headers=given)
    assert "'2000, 3000'" in assert_error(answer, 400, "bad_request")


@pytest.mark.parametrize("path", ["/healthz", "/models", "/metrics", "/nothing"])
def test_head_has_the_content_length_of_get(client: FlaskClient, path: str) -> None:
    client.get(path, headers={"X-Request-ID": "one"})
    got = client.get(path, headers={"X-Request-ID": "one"})
    head = client.head(path, headers={"X-Request-ID": "one"})
    assert (head.status_code, head.data) == (got.status_code, b"")
    assert int(head.headers["Content-Length"]) > 0
    if path != "/metrics":  # which counts what was asked meanwhile
        assert head.headers["Content-Length"] == got.headers["Content-Length"]


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
        "version_labels": {},
        "refused": {},
        "versions": [
            {
                "version": 1,
                "state": "ready",
                "labels": ["dark", "light"],
                "input": {"height": 8, "width": 6, "channels": 3, "fit": "stretch"},
                "provider": "CPUExecutionProvider",
                "precision": "float32",
                "title": "Dark or light",
                "metrics": {"accuracy": 1.0, "images": 2},
            }
        ],
    }
    listed = client.get("/models").json
    assert listed is not None
    assert [each["name"] for each in listed["models"]] == ["shade", "tint"]
    assert listed["models"][0]["default_version"] == 2
    running = {"provider": "CPUExecutionProvider", "precision": "float32"}
    assert listed["workers"] == [
        {
            "worker": 0,
            "state": "ready",
            "models": {
                "shade": {
                    "default_version": 2,
                    "versions": [1, 2],
                    "running": {"1": running, "2": running},
                },
                "tint": {"default_version": 1, "versions": [1], "running": {"1": running}},
            },
            "refused": {},
        }
    ]


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1", True), ("a b", False), ("x" * 129, False), ("", False)]
)
def test_a_sane_request_id_is_kept(client: FlaskClient, sent: str, kept: bool) -> None:
    answer = client.get("/healthz", headers={"X-Request-ID": sent})
    assert (answer.headers["X-Request-ID"] == sent) is kept


def test_the_openapi_document_is_valid_and_complete(app: Flask, client: FlaskClient) -> None:
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
        ("Answer", "/predict/shade", [DARK, b"bad"]),
        ("Answer", "/predict/shade?coverage=0.9", [DARK, b"bad"]),
        ("Error", "/predict/none", [DARK]),
        ("Model", "/models/shade", []),
        ("Models", "/models", []),
    ],
)
def test_answers_have_the_described_shape(
    client: FlaskClient, schema: str, path: str, files: list[bytes]
) -> None:
    described = json.loads(client.get("/openapi.json").text)
    answer = client.post(path, data=form(*files)) if files else client.get(path)
    jsonschema.validate(
        answer.json,
        {"$ref": f"#/components/schemas/{schema}", "components": described["components"]},
    )
