"""Every Prometheus series, and the page that merges those of all workers.

Knows prometheus-client; knows nothing of Flask or of onnxruntime. The counts of one worker lie in
files named by its slot, not by its process id: a worker that is replaced goes on where the last one
stopped, and there are never more files than slots.
"""

import os
from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's own name
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

STAGES = ("decode", "queue", "inference", "whole")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# From a digit alone in the queue (0.1 ms) to the default deadline.
BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class Metrics:
    """The series of one worker. Each is touched by one method here and by nothing else."""

    def __init__(self, *, slot: int | None = None) -> None:
        """Make the series: in the files of ``slot``, or in memory when there is no slot."""
        self.registry = CollectorRegistry()
        self._several = slot is not None
        # The class is global to prometheus-client and read whenever a series is made.
        values.ValueClass = (
            values.MutexValue if slot is None else values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        )
        self._make()

    def _make(self) -> None:
        model = ("model", "version")
        self._requests = Counter(
            "convserve_requests",
            "Answers by route, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._errors = Counter(
            "convserve_errors", "Errors by code.", ("code",), registry=self.registry
        )
        self._images = Counter(
            "convserve_images",
            "Images predicted, by the label they got.",
            (*model, "label"),
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
            (*model, "provider"),
            multiprocess_mode="livemax",
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "convserve_requests_in_flight",
            "Requests being answered.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        # Looking a child up by its labels costs more than counting.
        self._stage_of = lru_cache(maxsize=None)(self._stage.labels)
        self._image_of = lru_cache(maxsize=None)(self._images.labels)

    def loaded(self, name: str, version: int, *, provider: str, labels: Iterable[str]) -> None:
        """A version is served. Its series start at zero: a rate needs to see the first count."""
        self._loaded.labels(name, str(version), provider).set(1)
        for stage in STAGES:
            self._stage_of(stage, name, version)
        for label in labels:
            self._image_of(name, version, label)

    def in_flight(self, change: int) -> None:
        """A request came (1) or went (-1)."""
        self._in_flight.inc(change)

    def request(self, *, route: str, method: str, status: int) -> None:
        """A request was answered."""
        known = method if method in METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()

    def error(self, code: str) -> None:
        """An error was answered, for a request or for one of its images."""
        self._errors.labels(code).inc()

    def image(self, name: str, version: int, *, label: str) -> None:
        """An image was predicted."""
        self._image_of(name, version, label).inc()

    def stage(self, name: str, version: int, *, stage: str, seconds: float) -> None:
        """A stage of a request took so long."""
        self._stage_of(stage, name, version).observe(seconds)

    def page(self) -> bytes:
        """The page for Prometheus: all workers, where there are several."""
        if not self._several:
            return generate_latest(self.registry)
        merged = CollectorRegistry()
        MultiProcessCollector(merged, path=os.environ[DIRECTORY])  # type: ignore[no-untyped-call]
        return generate_latest(merged)
