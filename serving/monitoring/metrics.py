"""Every Prometheus series of a worker, and the page that merges the series of all workers.

The counts of a worker lie in files named by its slot, not its process id, so that a replaced worker
continues them. Knows nothing of Flask or onnxruntime.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from serving.monitoring import exposition
from serving.monitoring.multiprocess import SharedCounts, Version
from serving.monitoring.prediction_counts import PredictionCounts, by_version
from serving.monitoring.run_dir import DIRECTORY

# Versions, the last retired, that keep their series: a scrape must see their last counts, and a
# version that returns soon continues them. With ten labels and typicality a version has 120 series.
KEPT = 16

STAGES = ("decode", "queue", "inference", "whole")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Buckets of confidence: the bins of the baselines, and finer ones at the top.
CONFIDENCES = (*(edge / 10 for edge in range(1, 10)), 0.95, 0.99, 1.0)
# Buckets of typicality: the bins of the baselines, and finer ones at the bottom.
TYPICALITIES = (0.01, 0.05, *(edge / 10 for edge in range(1, 11)))
UNUSUAL = 0.01  # images of a lower typicality are counted
# Buckets of the time to a label, in seconds: up to thirty days.
DELAYS = (1, 10, 60, 600, 3600, 6 * 3600, 86400, 3 * 86400, 7 * 86400, 14 * 86400, 30 * 86400)
# Buckets of a stage, in seconds: from a digit alone in the queue to the default deadline.
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class Metrics:
    """The series of one worker, each changed by one method."""

    def __init__(self, *, slot: int | None = None, since: float | None = None) -> None:
        """Create the series, in the files of ``slot`` or in memory; they count from ``since``."""
        self.registry = CollectorRegistry()
        self.since = time.time() if since is None else since
        self.refusals: Callable[[], Iterable[str]] = tuple  # the paths refused at the moment
        self.hangs: Callable[[], int] = int  # workers replaced because they gave no heartbeat
        self._shared = None if slot is None else SharedCounts(Path(os.environ[DIRECTORY]), slot)
        self._retired: dict[Version, None] = {}  # in the order of their retirement
        # Not counted, but computed for each page.
        self._computed: list[Callable[[], Iterable[Metric]]] = [self._refused, self._hung]
        # The class is global to prometheus-client and read whenever a series is created.
        values.ValueClass = self._shared.value if self._shared else values.MutexValue
        self._create_request_series()
        self._create_version_series()

    def _create_request_series(self) -> None:
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        # The library appends ``_total`` to the name of a counter.
        requests = counter(
            "convserve_requests",
            "Responses by route, method and status.",
            ("route", "method", "status"),
        )
        errors = counter("convserve_errors", "Errors by code.", ("code",))
        # Looking a child up by its labels costs more than counting.
        self._requests_of = cache(requests.labels)
        self._errors_of = cache(errors.labels)
        self._in_flight = gauge(
            "convserve_requests_in_flight", "Requests in progress.", multiprocess_mode="livesum"
        )
        self._delay = histogram(
            "convserve_feedback_delay_seconds",
            "Seconds from a prediction to its label.",
            ("model",),
            buckets=DELAYS,
        )
        self._rejected = counter(
            "convserve_feedback_rejected", "Labels that were not recorded, by reason.", ("reason",)
        )
        self._kept = counter(
            "convserve_kept_images",
            "Images drawn to be kept by result: kept, skipped because too many waited, or failed.",
            ("result",),
        )
        for result in ("kept", "skipped", "failed"):
            self._kept.labels(result)

    def _create_version_series(self) -> None:
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        model = ("model", "version")
        self._images = counter(
            "convserve_images", "Predicted images by predicted label.", (*model, "label")
        )
        self._confidence = histogram(
            "convserve_confidence",
            "Confidence of predictions: the probability of the best label.",
            model,
            buckets=CONFIDENCES,
        )
        self._typicality = histogram(
            "convserve_typicality",
            "Typicality of images: the share of validation images that look no more typical.",
            model,
            buckets=TYPICALITIES,
        )
        self._unusual = counter(
            "convserve_unusual_images", "Images of a typicality below one in a hundred.", model
        )
        self._golden = counter(
            "convserve_golden_images",
            "Replayed golden images by result: right, wrong or failed.",
            (*model, "result"),
        )
        self._stage = histogram(
            "convserve_stage_seconds",
            "Seconds of a request by stage: decode, queue, inference, whole.",
            ("stage", *model),
            buckets=SECONDS,
        )
        self._loaded = Gauge(
            "convserve_model_info",
            "1 for each served version.",
            (*model, "provider", "precision"),
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self._shadow = counter(
            "convserve_shadow_images",
            "Images for a shadow by result: agreed or disagreed with the response, dropped because"
            " the worker was busy, or failed.",
            (*model, "shadow", "result"),
        )
        self._stage_of = cache(self._stage.labels)
        self._image_of = cache(self._images.labels)
        self._confidence_of = cache(self._confidence.labels)
        self._typicality_of = cache(self._typicality.labels)
        self._unusual_of = cache(self._unusual.labels)

    def add_version(
        self,
        name: str,
        version: int,
        *,
        provider: str,
        precision: str,
        labels: Iterable[str],
        typical: bool = False,
    ) -> None:
        """Start the series of a served version at zero: a rate needs to see the first count.
        ``typical`` is True if it has typicality."""
        with self._shared.lock() if self._shared else nullcontext():
            if (name, version) in self._retired:
                if self._shared and not self._shared.holds((name, version)):
                    self._forget(name, version)  # another worker has dropped it for all
                self._retired.pop((name, version), None)
            self._loaded.labels(name, str(version), provider, precision).set(1)
            for stage in STAGES:
                self._stage_of(stage, name, version)
            for label in labels:
                self._image_of(name, version, label)
            self._confidence_of(name, version)
            if typical:
                self._typicality_of(name, version)
                self._unusual_of(name, version)
            for result in ("right", "wrong", "failed"):
                self._golden.labels(name, str(version), result)

    def retire_version(self, name: str, version: int) -> None:
        """Note that a version is no longer served. Its counts stay for a while."""
        _remove(self._loaded, model=name, version=str(version))
        self._retired[name, version] = None
        if self._shared:
            self._shared.retire((name, version))

    def sweep(self) -> None:
        """Drop the counts of the versions that were retired first; called after each change."""
        if self._shared:
            self._shared.sweep(KEPT)
            dropped = [each for each in self._retired if not self._shared.holds(each)]
        else:
            dropped = list(self._retired)[:-KEPT]
        for version in dropped:
            self._forget(*version)

    def _forget(self, name: str, version: int) -> None:
        del self._retired[name, version]
        counted = (self._images, self._stage, self._shadow, self._confidence, self._golden)
        for metric in (*counted, self._typicality, self._unusual):
            _remove(metric, model=name, version=str(version))
        _remove(self._shadow, model=name, shadow=str(version))
        cached_labels = (self._stage_of, self._image_of, self._confidence_of)
        for cached in (*cached_labels, self._typicality_of, self._unusual_of):
            cached.cache_clear()

    def begin(self) -> None:
        """Note that a request has begun."""
        self._in_flight.inc()

    def finish(
        self, *, route: str, method: str, status: int, model: Version | None, seconds: float
    ) -> None:
        """Count a response; ``model`` is the name and version that answered, if one did."""
        self._in_flight.dec()
        known = method if method in METHODS else "other"
        self._requests_of(route, known, status).inc()
        if model is not None:
            self._stage_of("whole", *model).observe(seconds)

    def error(self, code: str) -> None:
        """Count an error, of a request or of one of its images."""
        self._errors_of(code).inc()

    def images(
        self,
        name: str,
        version: int,
        answers: Iterable[tuple[str, float]],
        spent: Mapping[str, float],
        typicality: Iterable[float] = (),
    ) -> None:
        """Count images by their best labels; observe the probabilities of these, the stages, and
        the typicality of the images if the version has it."""
        for stage, seconds in spent.items():
            self._stage_of(stage, name, version).observe(seconds)
        labels: dict[str, int] = {}
        observe = self._confidence_of(name, version).observe
        for label, confidence in answers:
            labels[label] = labels.get(label, 0) + 1
            observe(confidence)
        for label, count in labels.items():
            self._image_of(name, version, label).inc(count)
        for share in typicality:
            self._typicality_of(name, version).observe(share)
            if share < UNUSUAL:
                self._unusual_of(name, version).inc()

    def golden(self, name: str, version: int, *, result: str) -> None:
        """Count a replayed golden image."""
        self._golden.labels(name, str(version), result).inc()

    def shadow(self, name: str, version: int, shadow: int, *, result: str, images: int) -> None:
        """Count images that a version answered and its ``shadow`` predicted, or did not."""
        self._shadow.labels(name, str(version), str(shadow), result).inc(images)

    def label_delay(self, name: str, seconds: float) -> None:
        """Observe the seconds from a prediction to its label."""
        self._delay.labels(name).observe(seconds)

    def label_rejection(self, reason: str) -> None:
        """Count a label that was not recorded."""
        self._rejected.labels(reason).inc()

    def kept_image(self, result: str) -> None:
        """Count an image that was drawn to be kept: kept, skipped or failed."""
        self._kept.labels(result).inc()

    def add_computed(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Add series that are computed for each page, and are the same in every worker."""
        self._computed.append(collect)

    def page(self) -> bytes:
        """Return the page for Prometheus, merged over the workers."""
        collects = (self._counted, *self._computed)
        return exposition.page(family for collect in collects for family in collect())

    def predictions(self, name: str) -> Mapping[int, PredictionCounts]:
        """Return what all workers predicted with a model since the service started, by version."""
        return by_version(self._counted(), name)

    def _counted(self) -> Iterable[Metric]:
        return (self._shared or self.registry).collect()

    def _refused(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "convserve_refused",
            "1 for each published version, and the routing, that is refused; /models says why.",
            labels=("path",),
        )
        for path in sorted(set(self.refusals())):
            family.add_metric((path,), 1)
        yield family

    def _hung(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "convserve_worker_hangs",
            "Workers that were replaced because they gave no heartbeat.",
            value=self.hangs(),
        )


def _remove(metric: MetricWrapperBase, **labels: str) -> None:
    """Remove the series with these labels."""
    with warnings.catch_warnings():  # that the library's files keep them; ours do not
        warnings.simplefilter("ignore")
        metric.remove_by_labels(labels)
