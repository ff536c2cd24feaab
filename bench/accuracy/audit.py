"""Compare the labels in the database and the counters in Prometheus with what was sent.

Knows the table of labels and the counter of feedback; knows nothing of clients or kills.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.rig.postgres import query
from bench.rig.prometheus import Prometheus

COUNTER = "convserve_feedback_total"
FROM_ROWS = ("", "_confusion", "_brier", "_bin", "_bin_correct", "_bin_confidence")
RIGHT = f'sum({COUNTER}{{correct="true"}})'
ALL = f"sum({COUNTER})"

Key = tuple[str, str]  # a replica, and "true" or "false"


@dataclass(frozen=True)
class Row:
    """A label in the database."""

    id: str
    label: str
    correct: bool
    replica: str  # that wrote it
    at: float  # seconds since 1970

    @property
    def key(self) -> Key:
        """The labels of the counter that counts this row."""
        return self.replica, f"{self.correct}".lower()


def rows(address: str) -> list[Row]:
    """Return all labels."""
    statement = "SELECT id, label, predicted = label, replica, labelled_at FROM convserve_labels"
    return [Row(*each) for each in query(address, statement)]


def differing(found: Iterable[Row], sent: Mapping[str, str]) -> int:
    """Return the number of ids whose label is missing, was never sent, or differs."""
    there = {each.id: each.label for each in found}
    return sum(there.get(key) != sent.get(key) for key in there.keys() | sent.keys())


@dataclass(frozen=True)
class Scraped:
    """The counters of all replicas, as scraped."""

    counters: Mapping[Key, Sequence[tuple[float, float]]]  # time of each scrape, and the value
    took: Mapping[tuple[str, float], float]  # seconds of the scrape of a replica at that time

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(map(len, self.counters.values()))

    def ahead(self, found: Iterable[Row]) -> int:
        """Count samples above the number of rows that the replica had written by its answer."""
        written = defaultdict[Key, list[float]](list)
        for each in sorted(found, key=lambda row: row.at):
            written[each.key].append(each.at)
        return sum(
            value > bisect_right(written[key], at + self.took.get((key[0], at), 0.0))
            for key, samples in self.counters.items()
            for at, value in samples
        )

    def off(self, found: Iterable[Row], since: float) -> int:
        """Count samples since a time that differ from the number of rows, all of them older."""
        number = Counter(each.key for each in found)
        return sum(
            value != number[key]
            for key, samples in self.counters.items()
            for at, value in samples
            if at >= since
        )


def fallen(prometheus: Prometheus, seconds: float) -> str:
    """List counters computed from the database that fell: a restart, as Prometheus reads it."""
    names = [f"convserve_feedback{part}_total" for part in FROM_ROWS]
    span = f"{max(1, round(seconds))}s"
    falls = {name: prometheus.value(f"sum(resets({name}[{span}]))") for name in names}
    return "; ".join(f"`{name}`: {count:g}" for name, count in falls.items() if count)


def scraped(prometheus: Prometheus, seconds: float) -> Scraped:
    """Return the samples of the last ``seconds``, of one version of one model."""
    span = f"[{max(1, round(seconds))}s]"
    counters = {
        (each.labels["instance"], each.labels["correct"]): each.samples
        for each in prometheus.instant(COUNTER + span)
    }
    took = {
        (each.labels["instance"], at): value
        for each in prometheus.instant(f"scrape_duration_seconds{span}")
        for at, value in each.samples
    }
    return Scraped(counters, took)
