"""What the database holds and what Prometheus saw of it, beside what was sent.

Knows the table of labels and the counter of feedback; knows nothing of who sent, or of kills.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.rig.postgres import asked
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
        """The counter that counts it."""
        return self.replica, f"{self.correct}".lower()


def rows(address: str) -> list[Row]:
    """All of them."""
    told = asked(
        address, "SELECT id, label, predicted = label, replica, labelled_at FROM convserve_labels"
    )
    return [Row(*each) for each in told]


def counts(address: str) -> tuple[int, int]:
    """How many rows there are, and how many ids in them, as the database counts."""
    ((found, different),) = asked(
        address, "SELECT count(*), count(DISTINCT id) FROM convserve_labels"
    )
    return int(found), int(different)


def differing(found: Iterable[Row], sent: Mapping[str, str]) -> int:
    """Ids whose label was lost, came from nowhere, or is not the one that was sent."""
    there = {each.id: each.label for each in found}
    return sum(there.get(key) != sent.get(key) for key in there.keys() | sent.keys())


def told(fell: Counter[str]) -> str:
    """For a table."""
    return "; ".join(f"`{name}`: {count}" for name, count in fell.most_common()) or "none"


@dataclass(frozen=True)
class Seen:
    """The counters of all replicas, as scraped."""

    counters: Mapping[Key, Sequence[tuple[float, float]]]  # when it was asked, and what it told
    took: Mapping[tuple[str, float], float]  # the seconds of a replica's scrape at that time

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(map(len, self.counters.values()))

    def ahead(self, found: Iterable[Row]) -> int:
        """Samples above the number of rows that the replica had written when it had answered."""
        written = defaultdict[Key, list[float]](list)
        for each in sorted(found, key=lambda row: row.at):
            written[each.key].append(each.at)
        return sum(
            value > bisect_right(written[key], at + self.took.get((key[0], at), 0.0))
            for key, samples in self.counters.items()
            for at, value in samples
        )

    def off(self, found: Iterable[Row], since: float) -> int:
        """Samples since a time that are not the number of rows, all of which are older."""
        number = Counter(each.key for each in found)
        return sum(
            value != number[key]
            for key, samples in self.counters.items()
            for at, value in samples
            if at >= since
        )


def falls(samples: Sequence[tuple[float, float]]) -> int:
    """How often a counter was below what it had been, which Prometheus takes for a new start."""
    return sum(after[1] < before[1] for before, after in pairwise(samples))


def fallen(prometheus: Prometheus, seconds: float) -> Counter[str]:
    """How often which of the counters that come from the database fell in the last so many
    seconds."""
    found = Counter[str]()
    for each in prometheus.instant(f'{{__name__=~"{FROM_ROWS}"}}[{max(1, round(seconds))}s]'):
        found[each.labels["__name__"]] += falls(each.samples)
    return +found


def seen(prometheus: Prometheus, seconds: float) -> Seen:
    """What was scraped in the last so many seconds, of one version of one model."""
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
    return Seen(counters, took)
