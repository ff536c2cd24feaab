"""The page for Prometheus equals what prometheus-client writes."""

import math
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from serving.monitoring.exposition import _series, page

ODD = 'a "quoted" \\ one\nin two lines, ä'


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    monkeypatch.setattr("prometheus_client.metrics._use_created", False)
    made = CollectorRegistry()
    counter = Counter("images", ODD, ("model", "label"), registry=made)
    for number, label in enumerate(("cat", ODD, "")):
        counter.labels("pets", label).inc(number * 1e9)
    Counter("errors", "None yet.", ("code",), registry=made)
    gauge = Gauge("temperature", "Of nothing.", ("value",), registry=made)
    for value in (math.nan, math.inf, -math.inf, 0.1, 1 / 3, 1e-9, -2.0):
        gauge.labels(str(value)).set(value)
    Gauge("plain", "Without a label.", registry=made).set(3)
    histogram = Histogram("seconds", "Of a stage.", ("stage",), buckets=(0.1, 1), registry=made)
    for value in (0.05, 0.5, 5):
        histogram.labels("decode").observe(value)
    return made


def test_the_page_equals_that_of_the_library(registry: CollectorRegistry) -> None:
    expected = generate_latest(registry)
    assert page(registry.collect()) == expected
    assert page(registry.collect()) == expected  # from the cache
    assert ODD in {
        sample.labels.get("label")
        for family in text_string_to_metric_families(expected.decode())
        for sample in family.samples
    }


def test_numbers_are_current(registry: CollectorRegistry) -> None:
    page(registry.collect())
    counter = Counter("more", "More.", ("model",), registry=registry).labels("pets")
    for count in (1, 2):
        counter.inc()
        assert f'more_total{{model="pets"}} {count}.0\n'.encode() in page(registry.collect())


def test_times_of_creation_are_left_out() -> None:
    registry = CollectorRegistry()
    Counter("images", "Images.", registry=registry).inc()

    def families() -> Iterator[Metric]:
        yield from registry.collect()

    assert b"_created" in generate_latest(registry)
    assert page(families()).splitlines()[2:] == [b"images_total 1.0"]


def test_a_line_is_cached_by_all_of_its_labels(registry: CollectorRegistry) -> None:
    page(registry.collect())
    before = _series.cache_info()
    page(registry.collect())
    after = _series.cache_info()
    assert (after.misses, after.currsize) == (before.misses, before.currsize)
