"""Compare two published versions: results, cost, and the images that they label differently.

Knows the content of a published version; knows nothing of how it was trained.
"""

from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import numpy as np

from training.errors import UsageError
from training.evaluation import cost, robustness
from training.evaluation.published import Version
from training.evaluation.scoring import Score, on_test

NOTHING = "–"


def table(one: Version, other: Version) -> str:
    """Return the facts of two versions, a line each."""
    left, right = _facts(one), _facts(other)
    rows = [("", str(one), str(other))]
    rows += [
        (name, left.get(name, NOTHING), right.get(name, NOTHING))
        for name in dict.fromkeys([*left, *right])
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _facts(version: Version) -> dict[str, str]:
    metrics = version.metadata["metrics"]
    low, high = Score(metrics["correct"], metrics["images"]).interval
    facts = {
        "test accuracy": f"{metrics['accuracy']:.2%} of {metrics['images']:,}",
        "95% confidence": f"{low:.2%} to {high:.2%}",
        "calibration error": f"{metrics['calibration_error']:.2%}",
        "million multiply-accumulates": f"{cost.macs(version.graph) / 1e6:.1f}",
        "ms an image, one thread, now": f"{cost.milliseconds(version.file):.2f}",
        "file": f"{version.file.stat().st_size / 1e6:.1f} MB",
        "recipe": str(version.metadata.get("recipe", NOTHING)),
        **{name.lower(): version.fact(name) or NOTHING for name in ("Epochs", "Training time")},
    }
    if held := version.metadata.get("corrupted"):
        facts["corrupted images"] = f"{held['accuracy']:.2%}"
        facts |= {f"with {kind}": f"{share:.2%}" for kind, share in robustness.means(held).items()}
    recall = version.of_classes("Recall")
    return facts | {f"recall of {label}": share for label, share in recall.items()}


def on_data(one: Version, other: Version, *, data_dir: Path) -> str:
    """Count the disagreements of two versions on their common test split; raise ``UsageError`` if
    they were judged by different test splits."""
    if _judge(one) != _judge(other):
        raise UsageError(
            f"{one} was judged by the data {_judge(one)}, {other} by {_judge(other)}. "
            "Expected the same test split."
        )
    (answers, labels), (answers_too, _) = (
        on_test(version.file, version.metadata["dataset"]["name"], data_dir=data_dir)
        for version in (one, other)
    )
    best, best_too = answers.argmax(axis=1), answers_too.argmax(axis=1)
    alone = int(np.sum((best == labels) & (best_too != labels)))
    alone_too = int(np.sum((best != labels) & (best_too == labels)))
    return (
        f"Of {len(labels):,} test images they label {np.sum(best != best_too):,} differently. "
        f"{one} alone is right on {alone:,}, {other} alone on {alone_too:,}: "
        f"p = {mcnemar(alone, alone_too):.2g} if they were equally good (McNemar's exact test)."
    )


def mcnemar(one: int, other: int) -> float:
    """Return the p-value of McNemar's test (1947; exact, two-sided): the probability that two
    equally good classifiers differ at least this much, given the numbers of images that only the
    one and only the other labels correctly."""
    count = one + other
    coefficients: Iterable[int] = accumulate(  # binomial, each from the one before
        range(1, min(one, other) + 1), lambda term, n: term * (count - n + 1) // n, initial=1
    )
    return min(1.0, float(2 * sum(coefficients) / 2**count))


def _judge(version: Version) -> tuple[str, str]:
    dataset = version.metadata["dataset"]
    return dataset["name"], dataset["hash"][:12]
