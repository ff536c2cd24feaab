"""Compute for each scrape the series of labels, from the database, and those of the baselines.

A replica counts what it wrote itself, so replicas add up. While the database is unreachable its
series are absent: a rate does not take that for a fall. Knows nothing of HTTP.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from serving import __version__
from serving.errors import FeedbackUnavailable
from serving.feedback.labels import SCALE, Sum
from serving.inference.models.model import Model
from serving.monitoring.statistics import BINS

logger = logging.getLogger(__name__)

TIMEOUT = 1.0  # seconds for the database, which takes milliseconds
RETIRED = 16  # versions of a model, the newest, that keep their series once they are retired
CONFUSED = 20  # labels of a model with a confusion matrix: its series are as many squared
BIN_NAMES = [f"{(place + 1) / BINS:.1f}" for place in range(BINS)]

Version = tuple[str, str]
_VERSION = ("model", "version")


class FeedbackCollector:
    """The labels that this replica wrote, by version."""

    def __init__(
        self,
        sums: Callable[[], Sequence[Sum]],
        serves: Callable[[], Iterable[Model]],
        *,
        ephemeral: bool,
    ) -> None:
        """``ephemeral`` is True if ids are signed with a key of this run alone."""
        self._sums, self._serves, self._ephemeral = sums, serves, ephemeral
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sums")
        self._query: Future[Sequence[Sum]] | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield all series."""
        yield GaugeMetricFamily(
            "convserve_feedback_key_ephemeral",
            "1 if ids are signed with a key that ends with this run.",
            value=self._ephemeral,
        )
        about = "1, with the version of the service."
        build = GaugeMetricFamily("convserve_build_info", about, labels=("version",))
        build.add_metric((__version__,), 1)
        yield build
        served = list(self._serves())
        yield from _baselines(served)
        families: list[Metric] = []
        try:
            families = list(_families(_by_version(self._fetch(), served)))
        except (FeedbackUnavailable, TimeoutError):
            pass
        except Exception:  # the other series stay
            logger.exception("bug")
        yield from families
        about = "1 if the database of labels answers."
        yield GaugeMetricFamily("convserve_feedback_store_up", about, value=bool(families))

    def _fetch(self) -> Sequence[Sum]:
        """Return the sums, without waiting long for an unreachable database."""
        if self._query is None or self._query.done():
            self._query = self._thread.submit(self._sums)
        return self._query.result(TIMEOUT)


class _Tally:
    """The labels of one version. Its series start at zero: a rate needs to see the first label."""

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.correct = {False: 0, True: 0}
        self.bins = [(0, 0, 0)] * BINS  # labels, correct ones, sum of confidences
        self.brier = 0
        self.labels = set(labels)
        pairs = product(labels, labels) if len(labels) <= CONFUSED else ()
        self.confusion = dict.fromkeys(pairs, 0)

    def add(self, each: Sum) -> None:
        right = each.predicted == each.label
        self.correct[right] += each.labels
        self.brier += each.brier
        labels, correct, confidence = self.bins[each.bin]
        labels, correct = labels + each.labels, correct + each.labels * right
        self.bins[each.bin] = (labels, correct, confidence + each.confidence)
        pair = (each.label, each.predicted)
        self.confusion[pair] = self.confusion.get(pair, 0) + each.labels
        self.labels.update(pair)


def _by_version(sums: Sequence[Sum], served: Iterable[Model]) -> Mapping[Version, _Tally]:
    """Return the tallies of the served versions and of the newest retired ones."""
    tallies = {(model.name, str(model.version)): _Tally(model.labels) for model in served}
    retired: defaultdict[str, set[int]] = defaultdict(set)
    for each in sums:
        if (each.model, str(each.version)) not in tallies:
            retired[each.model].add(each.version)
    for name, versions in retired.items():
        tallies |= {(name, str(version)): _Tally() for version in sorted(versions)[-RETIRED:]}
    for each in sums:
        if tally := tallies.get((each.model, str(each.version))):
            tally.add(each)
    return tallies


def _families(tallies: Mapping[Version, _Tally]) -> Iterator[Metric]:
    total = _counter("", "Labels by correctness of the prediction.", "correct")
    confusion = _counter(
        "_confusion", "Labels by actual and predicted label.", "actual", "predicted"
    )
    brier = _counter("_brier", "Sum of (confidence - correct) squared.")
    bins = [
        _counter("_bin", "Labels by confidence, in bins named by their upper edge.", "bin"),
        _counter("_bin_correct", "Labels of a bin whose prediction was right.", "bin"),
        _counter("_bin_confidence", "Sum of the confidences of a bin.", "bin"),
    ]
    for version, tally in tallies.items():
        for right, count in tally.correct.items():
            total.add_metric((*version, str(right).lower()), count)
        brier.add_metric(version, tally.brier / SCALE**2)
        for name, (count, correct, confidence) in zip(BIN_NAMES, tally.bins, strict=True):
            for family, value in zip(bins, (count, correct, confidence / SCALE), strict=True):
                family.add_metric((*version, name), value)
        if len(tally.labels) <= CONFUSED:
            for pair, count in tally.confusion.items():
                confusion.add_metric((*version, *pair), count)
    yield from (total, confusion, brier, *bins)


def _counter(name: str, about: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"convserve_feedback{name}", about, labels=(*_VERSION, *labels))


def _baselines(served: Iterable[Model]) -> Iterator[Metric]:
    accuracy = _gauge("accuracy", "Accuracy on the test images.")
    classes = _gauge("class_share", "Share of the test images by predicted label.", "label")
    tenths = {
        name: _gauge(f"{name}_share", f"Share of the test images by {name} bin.", "bin")
        for name in ("confidence", "typicality")
    }
    for model in served:
        version = (model.name, str(model.version))
        about: Any = model.about
        if (reached := about.get("metrics", {}).get("accuracy")) is not None:
            accuracy.add_metric(version, reached)
        baseline = about.get("baseline", {})
        for label, share in baseline.get("classes", {}).items():
            classes.add_metric((*version, label), share)
        for held, family in tenths.items():
            for name, share in zip(BIN_NAMES, baseline.get(held, ()), strict=False):
                family.add_metric((*version, name), share)
    yield from (accuracy, classes, *tenths.values())


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"convserve_baseline_{name}", about, labels=(*_VERSION, *labels))
