"""How much faster int8 infers than float32, in turn, and how much accuracy it costs.

One image at a time on one thread, without decoding or HTTP. The accuracies are those of the whole
test set, which ``training`` measured of the exported files and wrote into them.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from bench.clients import bodies
from bench.reporting.figures import in_turn, median, quotients, ratios, seconds_per_call
from bench.reporting.promises import Promise, benchmark
from bench.rig.service import newest
from serving.inference.images.pixels import read
from serving.inference.models.model import FILES, Model

SPEEDUPS = {"cifar10": 1.5, "cats_vs_dogs": 2.5}  # of int8 over float32, at least
POINTS = 0.1  # of accuracy that int8 may cost


def measure(name: str, rounds: int, seconds: float) -> list[Promise]:
    """Measure the newest version of a model; return the rows of the table."""
    folder, least = newest(name), SPEEDUPS.get(name, 0.0)
    models = {
        precision: Model(folder / file, name=name, version=int(folder.name))
        for precision, file in FILES.items()
    }
    spec = models["float32"].spec
    images = [read(file, spec, max_pixels=10**8)[np.newaxis] for file in bodies.files(name)]
    ways = {name: partial(milliseconds, each, images, seconds) for name, each in models.items()}
    times = in_turn(ways, rounds)
    slow, fast = times["float32"], times["int8"]
    metrics: dict[str, Any] = {each: model.about["metrics"] for each, model in models.items()}
    points = 100 * (metrics["float32"]["accuracy"] - metrics["int8"]["accuracy"])
    return [
        Promise(
            f"`{name}`: float32's time ÷ int8's",
            f"≥ {least:g}" if least else "",
            f"{median(slow):.2f} ÷ {median(fast):.2f} ms: {ratios(slow, fast)}",
            median(quotients(slow, fast)) >= least,
        ),
        Promise(
            f"`{name}`: points of accuracy that int8 costs",
            f"≤ {POINTS:g}",
            f"{points:.2f}",
            round(points, 6) <= POINTS,
        ),
    ]


def milliseconds(model: Model, images: Sequence[Any], seconds: float) -> float:
    """Return the time of one image."""
    turns = cycle(images)
    return 1000 * seconds_per_call(lambda: model.predict(next(turns)), seconds)


@benchmark(
    rounds=(9, "rounds in which the precisions take turns"),
    seconds=(1.0, "length of each turn"),
)
def main(options: argparse.Namespace) -> tuple[str, list[Promise]]:
    """Measure all models; return the conditions and the rows of the table."""
    rows = [row for name in bodies.NAMES for row in measure(name, options.rounds, options.seconds)]
    above = (
        f"Medians of {options.rounds} interleaved rounds of {options.seconds:g} s; in brackets"
        " the least and the most:"
    )
    return above, rows


if __name__ == "__main__":
    sys.exit(main())
