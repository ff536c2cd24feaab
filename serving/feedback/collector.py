"""The series that are made when they are asked for: of labels, from the sums in the database, and
of the baselines that the files of the models tell.

Knows prometheus-client; knows nothing of HTTP. What a replica counts here it has written itself, so
replicas add up; while the database is away its series are absent, which no rate takes for a fall.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serving import __version__
from serving.errors import FeedbackUnavailable
from serving.feedback.labels import SCALE, Sum
from serving.inference.models.model import Model
from serving.monitoring.statistics import BINS

logger = logging.getLogger(__name__)

PATIENCE = 1.0  # seconds for the database, which takes some milliseconds
# Versions of a model that keep their series when they are served no longer: the newest.
RETIRED = 16
CONFUSED = 20  # labels of a model whose confusion is counted: its series are as many squared

Version = tuple[str, str]

BIN_NAMES = [f"{(place + 1) / BINS:.1f}" for place in range(BINS)]


class Scores(Collector):
    """What the labels of this replica say of each version."""

    def __init__(
        self,
        sums: Callable[[], Sequence[Sum]],
        serves: Callable[[], Iterable[Model]],
        *,
        ephemeral: bool,
    ) -> None:
        """``ephemeral`` is a key for this run alone."""
        self._sums, self._serves, self._ephemeral = sums, serves, ephemeral
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sums")
        self._asked: Future[Sequence[Sum]] | None = None

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        key = GaugeMetricFamily(
            "convserve_feedback_key_ephemeral",
            "1 where ids are signed by a key that ends with this run.",
        )
        key.add_metric((), float(self._ephemeral))
        up = GaugeMetricFamily(
            "convserve_feedback_store_up", "1 where the database of labels answers."
        )
        served = list(self._serves())
        build = GaugeMetricFamily(
            "convserve_build_info", "1, with the version of the service.", labels=("version",)
        )
        build.add_metric((__version__,), 1)
        yield from (key, build)
        yield from _baselines(served)
        try:
            sums = self._soon()
        except (FeedbackUnavailable, TimeoutError):
            up.add_metric((), 0)
        except Exception:  # all other series are told
            logger.exception("bug")
            up.add_metric((), 0)
        else:
            up.add_metric((), 1)
            yield from _families(_by_version(sums, served))
        yield up

    def _soon(self) -> Sequence[Sum]:
        """The sums. A page does not wait for a database that is away."""
        if self._asked is None or self._asked.done():
            self._asked = self._thread.submit(self._sums)
        return self._asked.result(PATIENCE)


class _Tally:
    """The labels of one version. Its series start at zero: a rate needs to see the first."""

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.correct = {False: 0, True: 0}
        self.bins = [[0, 0, 0] for _ in range(BINS)]  # labels, right ones, sum of confidences
        self.brier = 0
        self.confusion: dict[tuple[str, str], int] | None = None
        self.labels = set(labels)
        if len(labels) <= CONFUSED:
            self.confusion = {(label, other): 0 for label in labels for other in labels}

    def add(self, each: Sum) -> None:
        right = each.predicted == each.label
        self.correct[right] += each.labels
        self.brier += each.brier
        tally = self.bins[each.bin]
        tally[0] += each.labels
        tally[1] += each.labels * right
        tally[2] += each.confidence
        if self.confusion is not None:
            pair = (each.label, each.predicted)
            self.confusion[pair] = self.confusion.get(pair, 0) + each.labels
            self.labels.update(pair)
            if len(self.labels) > CONFUSED:
                self.confusion = None


def _by_version(sums: Sequence[Sum], served: Iterable[Model]) -> Mapping[Version, _Tally]:
    tallies: defaultdict[Version, _Tally] = defaultdict(_Tally)
    for model in served:
        tallies[model.name, str(model.version)] = _Tally(model.labels)
    gone: defaultdict[str, set[int]] = defaultdict(set)
    for each in sums:
        if (each.model, str(each.version)) not in tallies:
            gone[each.model].add(each.version)
    told = {name: sorted(versions)[-RETIRED:] for name, versions in gone.items()}
    for each in sums:
        version = each.model, str(each.version)
        if version in tallies or each.version in told[each.model]:
            tallies[version].add(each)
    return tallies


def _families(tallies: Mapping[Version, _Tally]) -> Iterator[Metric]:
    names = ("model", "version")
    total = _counter("", "Labels, by whether the prediction was right.", *names, "correct")
    confusion = _counter(
        "_confusion",
        "Labels, by what was so and what was predicted.",
        *names,
        "actual",
        "predicted",
    )
    brier = _counter("_brier", "Sum of the squares of confidence less 1, or 0 if wrong.", *names)
    binned = [
        _counter("_bin", "Labels, by confidence: bins by their upper edge.", *names, "bin"),
        _counter("_bin_correct", "Labels of a bin whose prediction was right.", *names, "bin"),
        _counter("_bin_confidence", "Sum of the confidences of a bin.", *names, "bin"),
    ]
    for version, tally in tallies.items():
        for right, count in tally.correct.items():
            total.add_metric((*version, str(right).lower()), count)
        brier.add_metric(version, tally.brier / SCALE**2)
        for place, values in zip(BIN_NAMES, tally.bins, strict=True):
            count, correct, confidence = values
            for family, value in zip(binned, (count, correct, confidence / SCALE), strict=True):
                family.add_metric((*version, place), value)
        for pair, count in (tally.confusion or {}).items():
            confusion.add_metric((*version, *pair), count)
    yield from (total, confusion, brier, *binned)


def _counter(name: str, about: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"convserve_feedback{name}", about, labels=labels)


def _baselines(served: Iterable[Model]) -> Iterator[Metric]:
    names = ("model", "version")
    accuracy = _gauge("accuracy", "Accuracy on the test images.", *names)
    classes = _gauge("class_share", "Share of the test images that got a label.", *names, "label")
    confidence = _gauge(
        "confidence_share", "Share of the test images by confidence: bins of 0.1.", *names, "bin"
    )
    for model in served:
        version = (model.name, str(model.version))
        told: Any = model.about
        if (reached := told.get("metrics", {}).get("accuracy")) is not None:
            accuracy.add_metric(version, reached)
        baseline = told.get("baseline", {})
        for label, share in baseline.get("classes", {}).items():
            classes.add_metric((*version, label), share)
        for place, share in zip(BIN_NAMES, baseline.get("confidence", ()), strict=False):
            confidence.add_metric((*version, place), share)
    yield from (accuracy, classes, confidence)


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"convserve_baseline_{name}", about, labels=labels)
