"""Every series is counted once, and one page merges several workers."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client import values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from serving.monitoring import metrics
from serving.monitoring.metrics import Metrics
from serving.monitoring.multiprocess import forget
from serving.monitoring.run_dir import DIRECTORY
from tests.serving.running import ROOT
from tests.serving.samples import png


def value(page: str, name: str, **labels: str) -> float:
    """Return the sum of the samples of that name with these labels."""
    found = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, (name, labels)
    return sum(found)


def labels(page: str, name: str, label: str) -> set[str]:
    """Return the values of a label in the samples of that name."""
    return {
        sample.labels[label]
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    }


def sentences(page: str, *, count: int) -> None:
    """Check that each of ``count`` families has a sentence of help."""
    texts = re.findall(r"^# HELP \w+ (.*)$", page, re.MULTILINE)
    assert len(texts) == count
    for text in texts:
        assert re.fullmatch(r"(1,?|[A-Z][a-z]+) [a-z(].*[a-z]\.", text), text


def test_every_series_has_a_sentence_of_help(client: FlaskClient) -> None:
    sentences(client.get("/metrics").text, count=29)


def test_a_request_is_counted_once_in_every_series(client: FlaskClient) -> None:
    client.post("/predict/shade", data=png(240), content_type="image/png")
    page = client.get("/metrics").text
    shade = {"model": "shade", "version": "2"}
    assert value(page, "convserve_requests_total", route="/predict/<name>", status="200") == 1
    assert value(page, "convserve_images_total", label="light", **shade) == 1
    for stage in ("decode", "queue", "inference", "whole"):
        assert value(page, "convserve_stage_seconds_count", stage=stage, **shade) == 1
    assert value(page, "convserve_requests_in_flight") == 1  # the scrape itself


def test_series_of_a_served_model_start_at_zero(client: FlaskClient) -> None:
    page = client.get("/metrics").text
    assert value(page, "convserve_images_total", model="tint", label="dark") == 0
    assert value(page, "convserve_stage_seconds_count", model="tint", stage="queue") == 0
    runs = {"provider": "CPUExecutionProvider", "precision": "float32"}
    assert value(page, "convserve_model_info", **runs) == 3


def test_errors_are_counted_by_code(client: FlaskClient) -> None:
    client.get("/nothing")
    client.post("/predict/shade", json={"images": ["*", "*"]})
    page = client.get("/metrics").text
    assert value(page, "convserve_errors_total", code="unknown_path") == 1
    assert value(page, "convserve_errors_total", code="invalid_image") == 2


def test_invented_methods_and_paths_create_no_series(client: FlaskClient) -> None:
    client.open("/a", method="BREW")
    client.open("/b", method="BREW")
    page = client.get("/metrics").text
    assert value(page, "convserve_requests_total", method="other", route="unknown") == 2
    assert "BREW" not in page


WORKER = """
import sys
from serving.monitoring.metrics import Metrics
metrics = Metrics(slot=int(sys.argv[1]))
metrics.images("shade", 1, [("dark", 0.9)], {})
print(metrics.page().decode())
"""


def test_a_replaced_worker_continues_the_file_of_its_slot(tmp_path: Path) -> None:
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
    assert {path.name for path in tmp_path.rglob("counter*")} == {"counter_0.db", "counter_1.db"}


FULL = """
import resource, sys
from serving.monitoring.metrics import Metrics
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # as on a full disk, but for the code
metrics = Metrics(slot=0)
for version in (1, 2, 3):
    labels = [f"label {each}" for each in range(100)]
    metrics.add_version("shade", version, provider="CPU", precision="float32", labels=labels)
    metrics.begin()
    metrics.images("shade", version, [(label, 0.9) for label in labels], {})
    metrics.finish(route="/", method="GET", status=200, model=("shade", version), seconds=1)
    metrics.retire_version("shade", version)
    metrics.sweep()
print(metrics.page().decode())
"""


@pytest.mark.parametrize(("limit", "counted"), [(0, False), (16_384, True), (2**20, True)])
def test_where_no_room_is_left_a_worker_counts_in_its_memory(
    tmp_path: Path, limit: int, counted: bool
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(limit)],
        cwd=ROOT,
        env={**os.environ, DIRECTORY: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stderr.count("no room for the counts") == (limit < 2**20)
    assert ("convserve_requests_total{" in ended.stdout) == counted
    for path in tmp_path.rglob("*.db"):  # no file is sparse
        assert 512 * path.stat().st_blocks >= path.stat().st_size <= limit


class Worker:
    """The metrics of a worker that loads and retires versions of one model."""

    def __init__(self, slot: int | None) -> None:
        self.metrics = Metrics(slot=slot)
        self._class = values.ValueClass

    def load(self, version: int) -> None:
        values.ValueClass = self._class  # another worker's, in a process of its own
        self.metrics.add_version(
            "shade", version, provider="CPU", precision="float32", labels=["dark"]
        )
        self.metrics.sweep()

    def count(self, version: int, images: int) -> None:
        values.ValueClass = self._class
        for _ in range(images):
            self.metrics.images("shade", version, [("dark", 0.9)], {})

    def retire(self, version: int) -> None:
        self.metrics.retire_version("shade", version)
        self.metrics.sweep()

    def load_and_retire(self, *versions: int) -> None:
        for version in versions:
            self.load(version)
            self.retire(version)

    def images(self, version: int) -> float | None:
        """Return the count on the page, or None if it has no such series."""
        page = self.metrics.page().decode()
        if str(version) not in labels(page, "convserve_images_total", "version"):
            return None
        return value(page, "convserve_images_total", version=str(version))


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, Worker]:
    """Return two workers of one run."""
    monkeypatch.setenv(DIRECTORY, str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", None)
    monkeypatch.setattr(metrics, "KEPT", KEPT)
    return Worker(0), Worker(1)


KEPT = 2
MANY = range(100, 100 + 2 * KEPT)


@pytest.mark.parametrize("slot", [None, 0])
def test_the_series_of_long_retired_versions_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slot: int | None
) -> None:
    monkeypatch.setenv(DIRECTORY, str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", None)
    monkeypatch.setattr(metrics, "KEPT", KEPT)
    worker = Worker(slot)
    worker.load(1)
    worker.count(1, 3)
    worker.load_and_retire(*MANY)
    page = worker.metrics.page().decode()
    left = {"1", *map(str, MANY[-KEPT:])}
    assert labels(page, "convserve_images_total", "version") == left
    assert labels(page, "convserve_stage_seconds_count", "version") == left
    assert worker.images(1) == 3
    assert {child[1] for child in worker.metrics._images._metrics} == left
    assert slot is None or len(list(tmp_path.rglob("*.db"))) == 3 * len(left) + 2 - KEPT


def test_a_sum_never_falls_to_the_count_of_one_worker(pair: tuple[Worker, Worker]) -> None:
    one, other = pair
    for worker, images in ((one, 5), (other, 7)):
        worker.load(1)
        worker.count(1, images)
    one.retire(1)
    one.load_and_retire(*MANY)
    assert [worker.images(1) for worker in pair] == [12, 12]
    other.retire(1)
    assert one.images(1) == 12
    for version in MANY:
        other.load_and_retire(version)
        assert other.images(1) in (12, None)
    assert one.images(1) is None


def test_a_version_that_returns_continues_until_it_was_dropped(pair: tuple[Worker, Worker]) -> None:
    for worker in pair:
        worker.load(1)
        worker.count(1, 2)
        worker.retire(1)
    for worker in pair:
        worker.load(1)
        worker.count(1, 1)
    assert pair[0].images(1) == 6
    for worker in pair:
        worker.retire(1)
    pair[1].load_and_retire(*MANY)
    for worker in pair:
        worker.load(1)
        worker.count(1, 1)
    assert pair[0].images(1) == 2


def test_a_worker_that_ended_leaves_its_counts(pair: tuple[Worker, Worker], tmp_path: Path) -> None:
    pair[0].load(1)
    pair[0].count(1, 2)
    forget(tmp_path, 0)
    assert pair[1].images(1) == 2
    page = pair[1].metrics.page().decode()
    assert labels(page, "convserve_model_info", "version") == set()
    pair[1].load_and_retire(*MANY)
    assert pair[1].images(1) is None


def test_a_version_dropped_during_a_scrape_is_left_out(
    pair: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    one.load_and_retire(1)
    merge = MultiProcessCollector.merge

    def meanwhile(files: list[str]) -> Any:
        other.load_and_retire(*MANY)
        monkeypatch.setattr(MultiProcessCollector, "merge", merge)
        return merge(files)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(MultiProcessCollector, "merge", meanwhile)
    assert one.images(1) is None
