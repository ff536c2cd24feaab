"""``POST /feedback``: under Flask and under the engine, with real ids and a real database."""

import json
import re
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as fuzz
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from serving.api.feedback import MOST
from serving.app import SERVICE, create_app
from serving.app.service import Service
from serving.errors import FeedbackUnavailable
from serving.feedback.database import Database
from serving.feedback.ids import Signer
from serving.feedback.labels import Label
from serving.settings import Settings
from tests.serving.conftest import KEY
from tests.serving.front import Client
from tests.serving.monitoring.test_metrics import value
from tests.serving.running import ROOT
from tests.serving.samples import assert_error, png, publish
from tests.serving.waiting import until

SHADE = ("shade", 2, [("light", 0.9)])


def signed(*answer: Any, key: str = KEY) -> str:
    return Signer([key], days=30).sign(*(answer or SHADE))[0]


def predicted(client: FlaskClient | Client, brightness: int = 240) -> str:
    answer = client.post("/predict/shade", data=png(brightness), content_type="image/png")
    assert answer.json
    text: str = answer.json["predictions"][0]["id"]
    return text


def label(client: FlaskClient | Client, body: Any) -> TestResponse:
    return client.post("/feedback", data=json.dumps(body), content_type="application/json")


def test_a_label_is_recorded_once(client: FlaskClient | Client) -> None:
    given = {"id": predicted(client), "label": "light"}
    found = {"model": "shade", "version": 2, "predicted": "light", "label": "light"}
    assert label(client, given).json == {"status": "recorded", "correct": True, **found}
    assert label(client, given).json == {"status": "duplicate", "correct": True, **found}
    page = client.get("/metrics").text
    shade = {"model": "shade", "version": "2"}
    assert value(page, "convserve_feedback_total", correct="true", **shade) == 1
    assert value(page, "convserve_feedback_total", correct="false", **shade) == 0
    assert value(page, "convserve_feedback_rejected_total", reason="duplicate") == 1
    assert value(page, "convserve_feedback_delay_seconds_count", model="shade") == 1


def test_a_wrong_prediction_is_reported_and_counted(client: FlaskClient | Client) -> None:
    answer = label(client, {"id": predicted(client), "label": "dark", "source": "audit"})
    assert answer.json
    assert answer.json["correct"] is False
    page = client.get("/metrics").text
    confused = {"actual": "dark", "predicted": "light"}
    assert value(page, "convserve_feedback_confusion_total", version="2", **confused) == 1


def test_another_label_for_the_same_prediction_conflicts(client: FlaskClient | Client) -> None:
    text = predicted(client)
    label(client, {"id": text, "label": "light"})
    answer = label(client, {"id": text, "label": "dark"})
    assert_error(answer, 409, "conflicting_feedback")
    page = client.get("/metrics").text
    assert value(page, "convserve_feedback_rejected_total", reason="conflicting_feedback") == 1
    assert value(page, "convserve_feedback_total", model="shade") == 1


def test_many_images_have_many_ids(client: FlaskClient | Client) -> None:
    form = {"image": [(BytesIO(png(n)), f"{n}.png") for n in (10, 240, 20)]}
    answer = client.post("/predict/shade", data=form)
    assert answer.json
    given = [{"id": each["id"], "label": "dark"} for each in answer.json["predictions"]]
    results = label(client, given).json
    assert results
    assert [each["correct"] for each in results["results"]] == [True, False, True]


def test_a_list_is_answered_item_by_item(client: FlaskClient | Client) -> None:
    good = {"id": predicted(client), "label": "light"}
    forged = {"id": signed(key="another key of somebody else"), "label": "light"}
    answer = label(
        client,
        [
            good,
            good,
            {**good, "label": "dark"},
            forged,
            {"id": good["id"][:30], "label": "light"},
            {"id": signed(), "label": "grey"},
            "what",
            {"id": signed(), "label": "dark"},
        ],
    )
    assert answer.status_code == 200
    assert answer.json
    found = [each.get("status") or each["error"]["code"] for each in answer.json["results"]]
    assert found == [
        *("recorded", "duplicate", "conflicting_feedback", "forged_id"),
        *("malformed_id", "unknown_label", "bad_request", "recorded"),
    ]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"id": "x" * 83, "label": "light"}, 400, "malformed_id"),
        ({"id": signed()[:-3], "label": "light"}, 400, "malformed_id"),
        ({"id": signed(key="another key of somebody else"), "label": "light"}, 403, "forged_id"),
        ({"id": signed(), "label": "grey"}, 422, "unknown_label"),
        ({"id": signed(), "label": 7}, 422, "unknown_label"),
        ({"id": signed(), "label": True}, 400, "bad_request"),
        ({"id": signed(), "label": None}, 400, "bad_request"),
        ({"id": signed()}, 400, "bad_request"),
        ({"label": "light"}, 400, "bad_request"),
        ({"id": signed(), "label": "light", "lable": 1}, 400, "bad_request"),
        ({"id": signed(), "label": "light", "source": "hearsay"}, 400, "bad_request"),
        ({"id": signed(), "label": "light", "source": ["user"]}, 400, "bad_request"),
        ([], 400, "bad_request"),
        ("text", 400, "bad_request"),
        ([{"id": "", "label": ""}] * (MOST + 1), 413, "request_too_large"),
    ],
    ids=[
        "garbage id",
        "cut id",
        "forged id",
        "unknown label",
        "unknown digit",
        "boolean",
        "null",
        "no label",
        "no id",
        "misspelt key",
        "unknown source",
        "sources",
        "empty list",
        "text",
        "too many",
    ],
)
def test_an_invalid_label_gets_its_error(
    client: FlaskClient | Client, body: Any, status: int, code: str
) -> None:
    assert_error(label(client, body), status, code)
    page = client.get("/metrics").text
    assert value(page, "convserve_feedback_rejected_total", reason=code) == 1


def test_a_body_of_far_too_many_items_is_refused_before_it_is_parsed(
    client: FlaskClient | Client,
) -> None:
    body = b"[" + b"[]," * 100_000 + b"[]]"
    assert_error(client.post("/feedback", data=body), 413, "request_too_large")


def test_labels_that_wait_for_the_database_hold_no_prediction_place(
    service: Service, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, go_on, held = app.test_client(), threading.Event(), list[bool]()

    def hang(_: Database, given: Sequence[Label]) -> list[str | None]:
        held.append(service.pipeline.admission.idle)
        assert go_on.wait(60)
        return [None] * len(given)

    monkeypatch.setattr(Database, "write", hang)
    asking = threading.Thread(
        target=label, args=(app.test_client(), {"id": signed(), "label": "dark"})
    )
    asking.start()
    until(lambda: held)
    assert predicted(client)
    go_on.set()
    asking.join()
    assert held == [True]


def test_a_label_is_recorded_while_all_prediction_places_are_taken(
    app: Flask, client: FlaskClient | Client
) -> None:
    admission = app.extensions[SERVICE].pipeline.admission
    given = {"id": predicted(client), "label": "light"}
    with ExitStack() as places:
        for _ in range(admission.max_requests):
            places.enter_context(admission.request(0))
        assert_error(client.post("/predict/shade", data=png(240)), 503, "overloaded")
        assert label(client, given).json["status"] == "recorded"  # type: ignore[index]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"id": 1e999}'])
def test_a_body_that_is_not_json_is_refused(client: FlaskClient | Client, body: bytes) -> None:
    assert_error(client.post("/feedback", data=body), 400, "bad_request")


def test_an_old_id_has_expired(
    client: FlaskClient | Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, later = signed(), time.time() + 31 * 86400
    monkeypatch.setattr("serving.feedback.ids.time.time", lambda: later)
    assert_error(label(client, {"id": text, "label": "light"}), 410, "expired_id")


def test_an_id_signed_by_an_old_key_is_labelled(models: Path) -> None:
    old = "the key of last month still known"
    app = create_app(Settings(models=models, feedback_keys=f"{KEY},{old}"))
    answer = label(app.test_client(), {"id": signed(key=old), "label": "light"})
    assert answer.status_code == 200


def test_an_id_of_a_retired_version_is_labelled(client: FlaskClient | Client) -> None:
    gone = signed("shade", 77, [("light", 0.8)])
    assert label(client, {"id": gone, "label": "dark"}).status_code == 200
    page = client.get("/metrics").text
    assert value(page, "convserve_feedback_total", version="77", correct="false") == 1
    assert_error(
        label(client, {"id": signed("shade", 77, [("light", 0.8)]), "label": "grey"}),
        422,
        "unknown_label",
    )


def test_a_retired_model_accepts_no_label(client: FlaskClient | Client) -> None:
    gone = signed("digits", 1, [("7", 0.9)])
    assert_error(label(client, {"id": gone, "label": "7"}), 404, "unknown_model")


def test_an_integer_is_the_text_of_a_label(tmp_path: Path) -> None:
    publish(
        tmp_path, name="digits", metadata={"labels": '["1", "7"]'}, golden={"1-1": 10, "7-2": 240}
    )
    client = create_app(Settings(models=tmp_path, feedback_keys=KEY)).test_client()
    seven = signed("digits", 1, [("7", 0.9)])
    answer = label(client, {"id": seven, "label": 7})
    assert answer.json
    assert answer.json["correct"] is True


def test_while_the_database_is_away_labels_are_refused_and_predictions_continue(
    client: FlaskClient | Client, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"id": predicted(client), "label": "light"}

    def away(*_: object) -> None:
        raise FeedbackUnavailable("The database of labels is away. Try again later.")

    with monkeypatch.context() as broken:
        broken.setattr(Database, "write", away)
        broken.setattr(Database, "sums", away)
        answer = label(client, given)
        assert_error(answer, 503, "feedback_unavailable")
        assert answer.headers["Retry-After"] == "5"
        assert_error(label(client, [given, given]), 503, "feedback_unavailable")
        assert predicted(client)
        page = client.get("/metrics").text
        assert value(page, "convserve_feedback_store_up") == 0
        assert "convserve_feedback_total" not in page
        assert_error(client.get("/models/nothing/quality"), 404, "unknown_model")
    assert label(client, given).status_code == 200
    page = client.get("/metrics").text
    assert value(page, "convserve_feedback_store_up") == 1
    assert value(page, "convserve_feedback_total") == 1


def test_a_real_database_that_is_away_is_reported(models: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nowhere/labels.db"
    client = create_app(Settings(models=models, feedback_keys=KEY, feedback_url=url)).test_client()
    given = {"id": predicted(client), "label": "light"}
    assert_error(label(client, given), 503, "feedback_unavailable")
    assert_error(client.get("/models/shade/quality"), 503, "feedback_unavailable")
    assert value(client.get("/metrics").text, "convserve_feedback_store_up") == 0


def test_without_keys_ids_end_with_the_run_and_a_gauge_shows_it(models: Path) -> None:
    app, other = (create_app(Settings(models=models)) for _ in range(2))
    given = {"id": predicted(app.test_client()), "label": "light"}
    assert_error(label(other.test_client(), given), 403, "forged_id")
    assert label(app.test_client(), given).status_code == 200
    page = app.test_client().get("/metrics").text
    assert value(page, "convserve_feedback_key_ephemeral") == 1


def test_series_of_labels_start_at_zero_and_baselines_are_exported(client: FlaskClient) -> None:
    page = client.get("/metrics").text
    shade = {"model": "shade", "version": "2"}
    assert value(page, "convserve_feedback_total", **shade) == 0
    assert value(page, "convserve_feedback_confusion_total", actual="dark", **shade) == 0
    assert value(page, "convserve_feedback_bin_total", bin="1.0", **shade) == 0
    assert value(page, "convserve_confidence_count", **shade) == 0
    assert value(page, "convserve_feedback_key_ephemeral") == 0
    assert value(page, "convserve_baseline_accuracy", **shade) == 1
    assert value(page, "convserve_baseline_class_share", label="dark", **shade) == 0.5


def test_the_page_holds_every_series_of_the_docs_with_its_labels(tmp_path: Path) -> None:
    publish(tmp_path / "models", typical=1.0)
    client = create_app(Settings(models=tmp_path / "models")).test_client()
    given = {"id": predicted(client), "label": "dark"}
    label(client, [given, given])
    client.post("/predict/nothing", data=b"")
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    docs = (ROOT / "docs/monitoring.md").read_text("utf-8").partition("## Series")[2]
    rows = re.findall(r"^\| `(convserve_\w+)` \| (.*?) \|", docs, re.MULTILINE)
    assert len(rows) > 20
    for name, names in rows:
        wanted = set(re.findall(r"`(\w+)`", names))
        if name == "convserve_refused":
            continue  # nothing is
        name = f"{name}_bucket" if "le" in wanted else name
        assert found.get(name) == wanted or (not wanted and name in found), name


items = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.one_of(st.text(), st.just(signed()), st.binary().map(repr), st.integers()),
            "label": st.one_of(st.text(), st.integers(), st.just("light"), st.none()),
            "source": st.one_of(st.text(), st.sampled_from(["user", "audit", "gold"])),
        },
    ),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
)


@fuzz(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.one_of(items, st.lists(items, max_size=4)))
def test_no_body_causes_a_bug(service: Service, app: Flask, body: Any) -> None:
    assert app.extensions[SERVICE] is service
    assert label(app.test_client(), body).status_code < 500


@fuzz(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.binary())
def test_no_bytes_cause_a_bug(app: Flask, body: bytes) -> None:
    assert app.test_client().post("/feedback", data=body).status_code == 400
