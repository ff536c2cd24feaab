"""Every series, counted once, and one page for several workers."""

import os
import subprocess
import sys
from pathlib import Path

from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import DIRECTORY
from tests.serving.running import ROOT
from tests.serving.samples import png


def value(page: str, name: str, **labels: str) -> float:
    """The sum of the samples of that name with these labels."""
    found = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, (name, labels)
    return sum(found)


def test_a_request_is_counted_once_in_every_series(client: FlaskClient) -> None:
    client.post("/predict/shade", data=png(240), content_type="image/png")
    page = client.get("/metrics").text
    shade = {"model": "shade", "version": "2"}
    assert value(page, "convserve_requests_total", route="/predict/<name>", status="200") == 1
    assert value(page, "convserve_images_total", label="light", **shade) == 1
    for stage in ("decode", "queue", "inference", "whole"):
        assert value(page, "convserve_stage_seconds_count", stage=stage, **shade) == 1
    assert value(page, "convserve_requests_in_flight") == 1  # the scrape itself


def test_series_of_a_loaded_model_start_at_zero(client: FlaskClient) -> None:
    page = client.get("/metrics").text
    assert value(page, "convserve_images_total", model="tint", label="dark") == 0
    assert value(page, "convserve_stage_seconds_count", model="tint", stage="queue") == 0
    assert value(page, "convserve_model_info", provider="CPUExecutionProvider") == 3


def test_errors_are_counted_by_code(client: FlaskClient) -> None:
    client.get("/nothing")
    client.post("/predict/shade", json={"images": ["*", "*"]})
    page = client.get("/metrics").text
    assert value(page, "convserve_errors_total", code="unknown_path") == 1
    assert value(page, "convserve_errors_total", code="invalid_image") == 2


def test_invented_methods_and_paths_make_no_series(client: FlaskClient) -> None:
    client.open("/a", method="BREW")
    client.open("/b", method="BREW")
    page = client.get("/metrics").text
    assert value(page, "convserve_requests_total", method="other", route="unknown") == 2
    assert "BREW" not in page


WORKER = """
import sys
from serving.metrics import Metrics
metrics = Metrics(slot=int(sys.argv[1]))
metrics.image("shade", 1, label="dark")
print(metrics.page().decode())
"""


def test_a_replaced_worker_goes_on_in_the_file_of_its_slot(tmp_path: Path) -> None:
    pages = [
        subprocess.run(
            [sys.executable, "-c", WORKER, slot],
            cwd=ROOT,
            env={**os.environ, DIRECTORY: str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for slot in ("0", "1", "0")
    ]
    assert [value(page, "convserve_images_total") for page in pages] == [1, 2, 3]
    assert {path.name for path in tmp_path.glob("counter*")} == {"counter_0.db", "counter_1.db"}
