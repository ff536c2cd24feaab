"""Series of labels do not depend on the order of the sums, and are bounded."""

import random
from collections.abc import Sequence
from pathlib import Path

from serving.feedback.collector import CONFUSED, RETIRED, FeedbackCollector
from serving.feedback.labels import SCALE, Sum
from serving.inference.models.model import Model
from serving.monitoring.exposition import Page
from tests.serving.monitoring.test_metrics import labels, value
from tests.serving.samples import publish


def page(sums: list[Sum], served: Sequence[Model] = ()) -> str:
    collector = FeedbackCollector(lambda: sums, lambda: served, ephemeral=False)
    return Page()(collector.collect()).decode()


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


def test_the_series_of_retired_versions_are_bounded(tmp_path: Path) -> None:
    sums = [Sum("shade", version, "dark", "dark", 9, 1, 1, 1) for version in range(1, 40)]
    served = Model(publish(tmp_path) / "model.onnx", name="shade", version=1)
    text = page(sums, [served])
    versions = {int(each) for each in labels(text, "convserve_feedback_total", "version")}
    assert versions == {1, *range(40 - RETIRED, 40)}
    assert value(text, "convserve_feedback_total", model="shade", version="1") == 1
