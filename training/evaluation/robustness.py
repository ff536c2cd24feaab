"""Accuracy on corrupted test images, by kind and severity, and its form in metadata and tables.

Knows how images are corrupted and scored; knows nothing of how a file was made.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.splits import Split
from training.errors import UsageError
from training.evaluation.corruptions import sets
from training.evaluation.corruptions.draws import SEED
from training.evaluation.corruptions.sets import GEOMETRY, Kind
from training.evaluation.scoring import Score, probabilities, score

log = logging.getLogger(__name__)

CHUNK = 2**22  # pixels that are corrupted at once

Judge = Callable[[NDArray[np.uint8], NDArray[np.int64]], Score]


def by_file(file: Path) -> Judge:
    """Return what scores images ``(N, H, W, C)`` and labels ``(N,)`` by an exported file."""
    return lambda images, labels: score(probabilities(file, images), labels)


def measure(
    judges: Sequence[Judge], dataset: str, test: Split, *, limit: int | None = None
) -> list[dict[str, Any]]:
    """Score the corruptions of a test split, or of its first ``limit`` images, by each judge;
    return the metadata ``corrupted`` of each.

    Raises:
        UsageError: if the data set has no benchmark.
    """
    images, labels = test.images[:limit], test.labels[:limit]
    benchmark = sets.find(dataset, images.shape[1])
    if benchmark is None:
        raise UsageError(f"The data set {dataset} has no corruptions. Expected: --no-corrupted.")
    found: list[dict[str, list[float]]] = [{} for _ in judges]
    for kind in benchmark.kinds:
        began = time.monotonic()
        for severity in range(1, len(kind.levels) + 1):
            changed = corrupt(kind, images, severity)
            for shares, judge in zip(found, judges, strict=True):
                accuracy = round(judge(changed, labels).accuracy, 6)
                shares.setdefault(kind.name, []).append(accuracy)
        mean = np.mean(found[0][kind.name])
        log.info("%-18s %.2f%%  %.0f s", kind.name, 100 * mean, time.monotonic() - began)
    common = {"benchmark": benchmark.title, "seed": SEED, "images": len(labels)}
    return [{**common, **_means(kinds), "kinds": kinds} for kinds in found]


def corrupt(kind: Kind, images: NDArray[np.uint8], severity: int) -> NDArray[np.uint8]:
    """Corrupt a test split ``(N, H, W, C)``, on all processors."""
    size = max(CHUNK // (images.shape[1] * images.shape[2]), 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(
            lambda first: kind.apply(images[first : first + size], severity, first=first),
            range(0, len(images), size),
        )
        return np.concatenate(list(parts))


def _means(kinds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    means = {kind: float(np.mean(shares)) for kind, shares in kinds.items()}
    groups = {"accuracy": list(means)}
    if set(GEOMETRY) <= set(means):
        groups["geometry"] = list(GEOMETRY)
        groups["others"] = [kind for kind in means if kind not in GEOMETRY]
    return {
        group: round(float(np.mean([means[kind] for kind in names])), 6)
        for group, names in groups.items()
    }


def means(held: Mapping[str, Any]) -> dict[str, float]:
    """Return the accuracy of each group and of each kind, 0-1, from the metadata ``corrupted``."""
    groups = {name: held[name] for name in ("geometry", "others") if name in held}
    return groups | {kind: float(np.mean(shares)) for kind, shares in held["kinds"].items()}


def summary(held: Mapping[str, Any]) -> str:
    """Return the metadata ``corrupted`` as a sentence."""
    severities = len(next(iter(held["kinds"].values())))
    return (
        f"**{held['accuracy']:.2%}**, the mean of {len(held['kinds'])} kinds of corruption, each "
        f"at {severities} {'severity' if severities == 1 else 'severities'}, on {held['images']:,} "
        f"test images ({held['benchmark']}, seed {held['seed']})."
    )


def table(held: Mapping[str, Any]) -> list[str]:
    """Return the metadata ``corrupted`` as lines of a Markdown table."""
    severities = range(1, len(next(iter(held["kinds"].values()))) + 1)
    columns = [str(each) for each in severities] if len(severities) > 1 else []
    lines = ["| Corruption | Mean | " + "".join(f"{each} | " for each in columns)]
    lines += ["| --- | ---: | " + "---: | " * len(columns)]
    for name, mean in means(held).items():
        shares = held["kinds"].get(name, [])
        cells = [f"{share:.2%}" for share in shares if columns]
        lines.append(f"| {name} | {mean:.2%} | " + "".join(f"{each} | " for each in cells))
    return [line.rstrip() for line in lines]
