"""How much faster int8 infers than float32, in turn, and what it costs in accuracy.

One image at a time on one thread, without decoding or HTTP. The accuracies are those of the whole
test set, as ``training`` measured them of the exported files and wrote them into these.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.clients import bodies
from bench.reporting.figures import median, ratios
from bench.reporting.promises import Promise, add_page, told
from bench.rig.environment import require
from bench.rig.service import newest
from serving.inference.images.pixels import read
from serving.inference.models.model import FILES, Model

ASKED = {"cifar10": 1.5, "cats_vs_dogs": 2.5}  # int8's speed, in that of float32
POINTS = 0.1  # of accuracy that int8 may cost


@dataclass(frozen=True)
class Measured:
    """One model: milliseconds an image of each round, and right answers of the test set."""

    float32: list[float]
    int8: list[float]
    fall: float  # in points


def measured(name: str, *, rounds: int, seconds: float) -> Measured:
    """Of the newest version."""
    folder = newest(name)
    models = {
        precision: Model(folder / file, name=name, version=int(folder.name))
        for precision, file in FILES.items()
    }
    spec = models["float32"].spec
    images = [read(file, spec, max_pixels=10**8)[np.newaxis] for file in bodies.files(name)]
    taken: dict[str, list[float]] = {precision: [] for precision in models}
    for turn in range(rounds):
        for precision in list(models)[:: 1 if turn % 2 else -1]:
            taken[precision].append(inferring(models[precision], images, seconds))
    metrics: dict[str, Any] = {each: model.about["metrics"] for each, model in models.items()}
    fall = metrics["float32"]["accuracy"] - metrics["int8"]["accuracy"]
    return Measured(taken["float32"], taken["int8"], 100 * fall)


def inferring(model: Model, images: Sequence[Any], seconds: float) -> float:
    """Milliseconds of an image."""
    began, turn = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        model.predict(images[turn % len(images)])
        turn += 1
    return 1000 * passed / turn


def promises(name: str, found: Measured) -> list[Promise]:
    """The lines of one model."""
    asked = ASKED.get(name, 0.0)
    faster = median([a / b for a, b in zip(found.float32, found.int8, strict=True)])
    times = f"{median(found.float32):.2f} ÷ {median(found.int8):.2f} ms"
    return [
        Promise(
            f"`{name}`: float32's time ÷ int8's",
            f"≥ {asked:g}" if asked else "",
            f"{times}: {ratios(found.float32, found.int8)}",
            faster >= asked,
        ),
        Promise(
            f"`{name}`: points of accuracy that int8 costs",
            f"≤ {POINTS:g}",
            f"{found.fall:.2f}",
            round(found.fall, 6) <= POINTS,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and tell; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.throughput.precision", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1, help="of each turn")
    add_page(parser)
    options = parser.parse_args(arguments)
    require()
    lines = []
    for name in bodies.NAMES:
        found = measured(name, rounds=options.rounds, seconds=options.seconds)
        lines += promises(name, found)
    above = f"Medians of {options.rounds} interleaved rounds of {options.seconds:g} s; in brackets"
    return told(
        lines, page=options.page, name="precision", above=f"{above} the least and the most:"
    )


if __name__ == "__main__":
    sys.exit(main())
