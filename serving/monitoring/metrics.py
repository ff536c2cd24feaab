"""Every Prometheus series, and the page that merges those of all workers.

Knows prometheus-client; knows nothing of Flask or of onnxruntime. The counts of one worker lie in
files named by its slot, not by its process id: a worker that is replaced goes on where the last one
stopped. The series of a version that is retired are dropped when ``KEPT`` more have been.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from serving.monitoring import exposition
from serving.monitoring.multiprocess import Counts, Version
from serving.monitoring.prediction_counts import Predicted, predicted
from serving.monitoring.run_dir import DIRECTORY

# Retired versions that keep their series: a scrape is to see their last counts, and one that comes
# back soon goes on where it stopped. With ten labels a version has 104 series.
KEPT = 16

STAGES = ("decode", "queue", "inference", "whole")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Of confidence: bins of the baselines, and the last finer.
CONFIDENCES = (*(edge / 10 for edge in range(1, 10)), 0.95, 0.99, 1.0)
# Of the time to a label, in seconds: from one to thirty days.
DELAYS = (1, 10, 60, 600, 3600, 6 * 3600, 86400, 3 * 86400, 7 * 86400, 14 * 86400, 30 * 86400)
# From a digit alone in the queue (0.1 ms) to the default deadline.
BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class Metrics:
    """The series of one worker. Each is touched by one method here and by nothing else."""

    def __init__(self, *, slot: int | None = None, since: float | None = None) -> None:
        """Make the series: in the files of ``slot``, which go on ``since`` then, or in memory when
        there is no slot."""
        self.registry = CollectorRegistry()
        self._counts = None if slot is None else Counts(Path(os.environ[DIRECTORY]), slot)
        self.since = time.time() if since is None else since  # it counts
        self._page = exposition.Page()
        self._retired: dict[Version, None] = {}  # in the order of their retirement
        # Tells what is refused, by path; not counted, as all workers tell it each other.
        self.refusals: Callable[[], Iterable[str]] = tuple
        # The class is global to prometheus-client and read whenever a series is made.
        values.ValueClass = self._counts.value if self._counts else values.MutexValue
        self._collectors: list[Collector] = [_Refused(self)]  # of what is made when it is asked for
        self._make_requests()
        self._make_versions()
        self._make_labels()

    def _make_requests(self) -> None:
        self._requests = Counter(
            "convserve_requests",
            "Answers by route, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._errors = Counter(
            "convserve_errors", "Errors by code.", ("code",), registry=self.registry
        )
        self._in_flight = Gauge(
            "convserve_requests_in_flight",
            "Requests being answered.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        # Looking a child up by its labels costs more than counting.
        self._requests_of = lru_cache(maxsize=None)(self._requests.labels)
        self._errors_of = lru_cache(maxsize=None)(self._errors.labels)

    def _make_labels(self) -> None:
        self._delay = Histogram(
            "convserve_feedback_delay_seconds",
            "Seconds from a prediction to its label.",
            ("model",),
            buckets=DELAYS,
            registry=self.registry,
        )
        self._rejected = Counter(
            "convserve_feedback_rejected",
            "Labels that were not recorded, by reason.",
            ("reason",),
            registry=self.registry,
        )

    def _make_versions(self) -> None:
        model = ("model", "version")
        self._images = Counter(
            "convserve_images",
            "Images predicted, by the label they got.",
            (*model, "label"),
            registry=self.registry,
        )
        self._confidence = Histogram(
            "convserve_confidence",
            "Confidence of an answer: the probability of its best label.",
            model,
            buckets=CONFIDENCES,
            registry=self.registry,
        )
        self._golden = Counter(
            "convserve_golden_images",
            "Golden images predicted anew, by what came of it: right, wrong or failed.",
            (*model, "result"),
            registry=self.registry,
        )
        self._stage = Histogram(
            "convserve_stage_seconds",
            "Seconds of a request, by stage: decode, queue, inference, whole.",
            ("stage", *model),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._loaded = Gauge(
            "convserve_model_info",
            "1 for each version that is served.",
            (*model, "provider", "precision"),
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self._shadow = Counter(
            "convserve_shadow_images",
            "Images predicted by a shadow, by whether its best label is that of the answer: agreed,"
            " disagreed; or dropped as the worker was busy, or failed.",
            (*model, "shadow", "result"),
            registry=self.registry,
        )
        self._stage_of = lru_cache(maxsize=None)(self._stage.labels)
        self._image_of = lru_cache(maxsize=None)(self._images.labels)
        self._confidence_of = lru_cache(maxsize=None)(self._confidence.labels)

    def loaded(
        self, name: str, version: int, *, provider: str, precision: str, labels: Iterable[str]
    ) -> None:
        """A version is served. Its series start at zero: a rate needs to see the first count."""
        with self._counts.alone() if self._counts else nullcontext():
            if (name, version) in self._retired:
                self._drop_where_gone([(name, version)])
                self._retired.pop((name, version), None)
            self._loaded.labels(name, str(version), provider, precision).set(1)
            for stage in STAGES:
                self._stage_of(stage, name, version)
            for label in labels:
                self._image_of(name, version, label)
            self._confidence_of(name, version)
            for result in ("right", "wrong", "failed"):
                self._golden.labels(name, str(version), result)

    def retired(self, name: str, version: int) -> None:
        """A version is served no longer. Its counts stay for a while."""
        _remove(self._loaded, model=name, version=str(version))
        self._retired[name, version] = None
        if self._counts:
            self._counts.retire((name, version))

    def sweep(self) -> None:
        """Drop the counts of the versions that were retired first; called after each change."""
        if self._counts:
            self._counts.sweep(KEPT)
            self._drop_where_gone(list(self._retired))
        else:
            self._drop(list(self._retired)[:-KEPT])

    def _drop_where_gone(self, versions: Iterable[Version]) -> None:
        """What a worker has dropped, for all."""
        self._drop([each for each in versions if self._counts and not self._counts.holds(each)])

    def _drop(self, versions: Iterable[Version]) -> None:
        for name, version in versions:
            del self._retired[name, version]
            for metric in (
                self._images,
                self._stage,
                self._shadow,
                self._confidence,
                self._golden,
            ):
                _remove(metric, model=name, version=str(version))
            _remove(self._shadow, model=name, shadow=str(version))
            self._stage_of.cache_clear()
            self._image_of.cache_clear()
            self._confidence_of.cache_clear()

    def shadow(self, name: str, version: int, shadow: int, *, result: str, images: int) -> None:
        """A shadow predicted, or did not, what a version had answered."""
        self._shadow.labels(name, str(version), str(shadow), result).inc(images)

    def in_flight(self, change: int) -> None:
        """A request came (1) or went (-1)."""
        self._in_flight.inc(change)

    def request(self, *, route: str, method: str, status: int) -> None:
        """A request was answered."""
        known = method if method in METHODS else "other"
        self._requests_of(route, known, status).inc()

    def error(self, code: str) -> None:
        """An error was answered, for a request or for one of its images."""
        self._errors_of(code).inc()

    def images(self, name: str, version: int, answers: Iterable[tuple[str, float]]) -> None:
        """Images were predicted: the best label of each, and its probability."""
        labels: dict[str, int] = {}
        observed = self._confidence_of(name, version).observe
        for label, confidence in answers:
            labels[label] = labels.get(label, 0) + 1
            observed(confidence)
        for label, count in labels.items():
            self._image_of(name, version, label).inc(count)

    def golden(self, name: str, version: int, *, result: str) -> None:
        """A golden image was predicted anew."""
        self._golden.labels(name, str(version), result).inc()

    def labelled(self, name: str, seconds: float) -> None:
        """A label came, so many seconds after its prediction."""
        self._delay.labels(name).observe(seconds)

    def rejected(self, reason: str) -> None:
        """A label was not recorded."""
        self._rejected.labels(reason).inc()

    def stages(self, name: str, version: int, spent: Mapping[str, float]) -> None:
        """Observe the seconds that a request spent in each stage."""
        for stage, seconds in spent.items():
            self._stage_of(stage, name, version).observe(seconds)

    def add(self, collector: Collector) -> None:
        """Tell of more on the page: of what is the same whichever worker answers."""
        self._collectors.append(collector)

    def page(self) -> bytes:
        """The page for Prometheus: all workers, where there are several."""
        told = (self._counts or self.registry, *self._collectors)
        return self._page(family for each in told for family in each.collect())

    def predicted(self, name: str) -> Mapping[int, Predicted]:
        """What all workers predicted with a model since the service's start, by version."""
        return predicted((self._counts or self.registry).collect(), name)


class _Refused(Collector):
    """What is refused now."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One series for each path."""
        family = GaugeMetricFamily(
            "convserve_refused",
            "1 for each published version, and the routing, that is refused; /models says why.",
            labels=("path",),
        )
        for path in sorted(set(self._metrics.refusals())):
            family.add_metric((path,), 1)
        yield family


def _remove(metric: MetricWrapperBase, **labels: str) -> None:
    """Forget the series with these labels."""
    with warnings.catch_warnings():  # that its files keep them; ours do not
        warnings.simplefilter("ignore")
        metric.remove_by_labels(labels)
