"""Compare the labels in the database and the counters in Prometheus with what was sent.

Knows the table of labels and the counter of feedback; knows nothing of clients or kills.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.rig.postgres import query
from bench.rig.prometheus import Prometheus

COUNTER = "convserve_feedback_total"
FROM_ROWS = "convserve_feedback(|_confusion|_brier|_bin.*)_total"
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


def counts(address: str) -> tuple[int, int]:
    """Return the numbers of rows and of different ids, as the database counts them."""
    ((found, different),) = query(
        address, "SELECT count(*), count(DISTINCT id) FROM convserve_labels"
    )
    return int(found), int(different)


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


def falls(samples: Sequence[tuple[float, float]]) -> int:
    """Count how often a counter fell, which Prometheus interprets as a restart."""
    return sum(after[1] < before[1] for before, after in pairwise(samples))


def fallen(prometheus: Prometheus, seconds: float) -> Counter[str]:
    """Count the falls of each counter computed from the database, in the last ``seconds``."""
    found = Counter[str]()
    for each in prometheus.instant(f'{{__name__=~"{FROM_ROWS}"}}[{max(1, round(seconds))}s]'):
        found[each.labels["__name__"]] += falls(each.samples)
    return +found


def listed(fallen: Counter[str]) -> str:
    """Format the counters that fell."""
    return "; ".join(f"`{name}`: {count}" for name, count in fallen.most_common())


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
