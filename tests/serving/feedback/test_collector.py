"""Series of labels do not depend on the order of the sums, and are bounded."""

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

import serving
from serving.errors import FeedbackUnavailable
from serving.feedback import collector as module
from serving.feedback.collector import CONFUSED, RETIRED, FeedbackCollector
from serving.feedback.labels import SCALE, Sum
from serving.inference.models.model import Model
from serving.monitoring import exposition
from tests.serving.monitoring.test_metrics import labels, sentences, value
from tests.serving.samples import publish


def page(sums: list[Sum], served: Sequence[Model] = ()) -> str:
    collector = FeedbackCollector(lambda: sums, lambda: served, ephemeral=False)
    return exposition.page(collector.collect()).decode()


def collected(sums: Callable[[], Sequence[Sum]], *, ephemeral: bool = False) -> str:
    collector = FeedbackCollector(sums, list, ephemeral=ephemeral)
    return exposition.page(collector.collect()).decode()


def some(count: int) -> list[Sum]:
    rng = random.Random(7)
    return [
        Sum("digits", 3, str(rng.randrange(count)), str(n % count), n % 10, 1, part, part * part)
        for n, part in enumerate(rng.randrange(SCALE) for _ in range(200))
    ]


def series(text: str) -> set[str]:
    return {line for line in text.splitlines() if line.startswith("convserve_feedback")}


def test_the_order_of_the_rows_changes_no_value() -> None:
    sums = some(10)
    first = series(page(sums))
    for seed in range(20):
        random.Random(seed).shuffle(sums)
        assert series(page(sums)) == first


def test_confusion_is_counted_for_models_of_few_labels() -> None:
    few, many = page(some(CONFUSED)), page(some(CONFUSED + 1)[:CONFUSED])
    assert len(labels(few, "convserve_feedback_confusion_total", "actual")) == CONFUSED
    assert "convserve_feedback_confusion_total{" not in many
    assert value(many, "convserve_feedback_total") == CONFUSED
    assert value(many, "convserve_feedback_bin_total") == CONFUSED


@pytest.mark.parametrize(("count", "pairs"), [(CONFUSED, CONFUSED**2), (CONFUSED + 1, 0)])
def test_confusion_starts_at_zero_for_models_of_few_labels(count: int, pairs: int) -> None:
    names = [f"label-{number}" for number in range(count)]
    model = SimpleNamespace(name="many", version=1, labels=names, about={})
    assert page([], [cast(Model, model)]).count("convserve_feedback_confusion_total{") == pairs


def test_the_series_of_retired_versions_are_bounded(tmp_path: Path) -> None:
    sums = [Sum("shade", version, "dark", "dark", 9, 1, 1, 1) for version in range(1, 40)]
    served = Model(publish(tmp_path, version=39) / "model.onnx", name="shade", version=39)
    text = page(sums, [served])
    versions = {int(each) for each in labels(text, "convserve_feedback_total", "version")}
    assert versions == set(range(39 - RETIRED, 40))
    assert value(text, "convserve_feedback_total", model="shade", version="39") == 1


def test_each_sum_is_counted_in_every_series() -> None:
    half = SCALE // 2
    sums = [
        Sum("shade", 2, "dark", "dark", 9, 2, 2 * SCALE, 0),
        Sum("shade", 2, "dark", "dark", 8, 1, SCALE, 0),
        Sum("shade", 2, "dark", "light", 4, 2, 2 * half, 2 * half**2),
        Sum("shade", 2, "light", "light", 4, 1, half, half**2),
    ]
    text = page(sums)

    def read(series: str, **labels: str) -> float:
        return value(
            text, f"convserve_feedback{series}_total", model="shade", version="2", **labels
        )

    assert (read("", correct="true"), read("", correct="false")) == (4, 2)
    assert read("_brier") == pytest.approx(0.75, abs=1e-4)
    assert [read("_bin", bin=edge) for edge in ("0.5", "0.9", "1.0")] == [3, 1, 2]
    assert [read("_bin_correct", bin=edge) for edge in ("0.5", "0.9", "1.0")] == [1, 1, 2]
    assert read("_bin_confidence", bin="1.0") == 2
    assert read("_bin_confidence", bin="0.5") == pytest.approx(1.5, abs=1e-4)
    assert labels(text, "convserve_feedback_bin_total", "bin") == {
        f"{n / 10}" for n in range(1, 11)
    }
    assert read("_confusion", actual="light", predicted="dark") == 2
    assert read("_confusion", actual="light", predicted="light") == 1
    assert read("_confusion", actual="dark", predicted="dark") == 3


def test_series_of_a_served_version_start_at_zero_and_its_baseline_is_shown(tmp_path: Path) -> None:
    served = Model(publish(tmp_path) / "model.onnx", name="shade", version=1)
    text = page([], [served])
    shade = {"model": "shade", "version": "1"}
    for correct in ("true", "false"):
        assert value(text, "convserve_feedback_total", correct=correct, **shade) == 0
    pairs = [(a, b) for a in ("dark", "light") for b in ("dark", "light")]
    for actual, guess in pairs:
        pair = {"actual": actual, "predicted": guess}
        assert value(text, "convserve_feedback_confusion_total", **pair, **shade) == 0
    assert value(text, "convserve_feedback_brier_total", **shade) == 0
    assert value(text, "convserve_baseline_accuracy", **shade) == 1
    assert value(text, "convserve_baseline_class_share", label="light", **shade) == 0.5
    assert value(text, "convserve_baseline_confidence_share", bin="1.0", **shade) == 1
    assert value(text, "convserve_baseline_confidence_share", bin="0.9", **shade) == 0


def test_a_file_without_metrics_has_no_baseline(tmp_path: Path) -> None:
    path = publish(tmp_path, metadata={"metrics": "", "baseline": ""})
    text = page([], [Model(path / "model.onnx", name="shade", version=1)])
    assert "convserve_baseline_accuracy{" not in text
    assert "convserve_baseline_class_share{" not in text
    assert "convserve_baseline_confidence_share{" not in text


def test_the_key_and_the_version_of_the_service_are_shown() -> None:
    text = collected(list)
    assert value(text, "convserve_feedback_key_ephemeral") == 0
    assert value(text, "convserve_build_info", version=serving.__version__) == 1
    assert value(text, "convserve_feedback_store_up") == 1
    assert value(collected(list, ephemeral=True), "convserve_feedback_key_ephemeral") == 1


@pytest.mark.parametrize("error", [FeedbackUnavailable("unreachable"), RuntimeError("a bug")])
def test_without_the_database_only_its_series_are_absent(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> list[Sum]:
        raise error

    text = collected(fail)
    assert value(text, "convserve_feedback_store_up") == 0
    assert value(text, "convserve_build_info") == 1
    assert "convserve_feedback_total" not in text
    logged = [record.message for record in caplog.records]
    assert logged == (["bug"] if isinstance(error, RuntimeError) else [])


def test_a_scrape_does_not_wait_for_a_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.01)
    resume, asked = threading.Event(), list[int]()

    def hang() -> list[Sum]:
        asked.append(1)
        assert resume.wait(60)
        return []

    collector = FeedbackCollector(hang, list, ephemeral=False)

    def up() -> float:
        return value(exposition.page(collector.collect()).decode(), "convserve_feedback_store_up")

    assert (up(), up()) == (0, 0)
    assert asked == [1]  # one query at a time
    resume.set()
    monkeypatch.setattr(module, "TIMEOUT", 60)
    assert up() == 1
    assert up() == 1


def test_every_series_has_a_sentence_of_help() -> None:
    sentences(page([]), count=13)
