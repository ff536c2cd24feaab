"""How fast the training half trains: `make bench-train`.

Times steps of the CIFAR-10 recipe and of the tutorial's network on one prepared batch, and on
batches that are gathered and shuffled as in training: the difference is the wait for a batch. Then
trains both completely, each in a new run folder, on the device that Keras chooses.

`--normalization` needs no data and two minutes: it times the steps of the recommended recipes, on
random pixels, with Keras' own batch normalisation and with ours, in turn.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from bench.reporting import promises
from bench.reporting.figures import median, quotients, rotated, spread, table
from training import recipes
from training.data.datasets import Dataset, default_data_dir, load
from training.data.sources import SOURCES
from training.data.splits import Split
from training.fitting.batches import Batches
from training.fitting.fit import fit, policy
from training.modelling.batch_norm import BatchNormalization
from training.modelling.network import build, cores, trainable
from training.modelling.recipe import Recipe

RECIPES = ("cifar10", "cifar10_sixconv")
NORMALIZED = ("digits", "cifar10", "cats_vs_dogs")


def train(entry: Recipe, data: Dataset, run: Path, options: argparse.Namespace) -> list[str]:
    """Train as the command `train` does; return a row of the table."""
    ends, accuracies = [0.0], list[float]()  # of each epoch; seconds since training began
    began: list[float] = []

    def on_epoch_end(_epoch: int, logs: dict[str, float]) -> None:
        ends.append(time.perf_counter() - began[0])
        accuracies.append(logs["val_accuracy"])

    clock = keras.callbacks.LambdaCallback(
        on_train_begin=lambda _logs: began.append(time.perf_counter()), on_epoch_end=on_epoch_end
    )
    fit(
        entry,
        data,
        run=run,
        seed=options.seed,
        epochs=options.epochs,
        command=f"python -m training train {entry.name} --seed {options.seed}",
        callbacks=[clock],
        verbose=2,
    )
    spans = [end - start for start, end in pairwise(ends)]
    epoch = median(spans)
    images = Batches(data.train, entry.batch_size, seed=1).steps * entry.batch_size
    pairs = zip(ends[1:], accuracies, strict=True)
    reached = (f"{end:.0f} s" for end, accuracy in pairs if accuracy >= options.target)
    return [
        *(f"`{entry.name}`", f"{len(spans)}", f"{ends[-1]:.0f} s", f"{epoch:.1f} s"),
        *(f"{images / epoch:,.0f}", next(reached, "never"), f"{max(accuracies):.2%}"),
    ]


def compare_batches(entry: Recipe, data: Dataset, steps: int, rounds: int = 3) -> list[str]:
    """Time steps on a prepared batch and on gathered ones, in turn; return a row of the table."""
    keras.config.set_dtype_policy(policy("auto"))
    model = trainable(entry, build(entry, len(data.labels)), steps=steps)
    size = entry.batch_size
    ready = Split(data.train.images[:size], data.train.labels[:size])
    some = Split(data.train.images[: size * steps], data.train.labels[: size * steps])
    ways = {"ready": Same(ready, steps), "gathered": Batches(some, size, seed=1)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):  # the first compiles
        for name, batches in ways.items():
            began = time.perf_counter()
            model.fit(batches, shuffle=False, verbose=0)
            if turn:
                times[name].append((time.perf_counter() - began) / steps)
    keras.config.set_dtype_policy("float32")
    medians = (f"{median(each) * 1000:.0f} ms" for each in times.values())
    ratio = spread(quotients(times["gathered"], times["ready"]), ".3f")
    return [f"`{entry.name}`", *medians, ratio]


def compare_normalizations(entry: Recipe, classes: int, steps: int) -> list[str]:
    """Time steps with Keras' own batch normalisation and with ours, in turn; return a row."""
    keras.config.set_dtype_policy(policy("auto"))
    network = build(entry, classes)
    own = keras.models.clone_model(network, clone_function=_with_own_normalization)
    models = {"own": trainable(entry, own, steps=steps)}
    models["ours"] = trainable(entry, network, steps=steps)
    keras.config.set_dtype_policy("float32")
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (entry.batch_size, *entry.shape), dtype=np.uint8)
    labels = rng.integers(0, classes, entry.batch_size)
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(steps + 2):  # the first compiles, the second fills caches
        for name, model in rotated([*models.items()], turn):
            began = time.perf_counter()
            model.train_on_batch(images, labels)
            if turn > 1:
                times[name].append(time.perf_counter() - began)
    return [
        f"`{entry.name}`",
        *(f"{median(each) * 1000:.0f} ms" for each in times.values()),
        spread(quotients(times["own"], times["ours"])),
    ]


def _with_own_normalization(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return Keras' own layer in place of ours; all other layers are shared."""
    if type(layer) is BatchNormalization:
        return keras.layers.BatchNormalization.from_config(layer.get_config())
    return layer


class Same(Batches):
    """One batch, repeated without any work."""

    def __init__(self, split: Split, steps: int) -> None:
        super().__init__(split, len(split.labels))
        self._batch, self._count = (split.images, split.labels), steps

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, _index: int) -> Any:
        return self._batch


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = promises.parser(
        "throughput.training",
        __doc__,
        None,
        steps=(20, "steps of each comparison"),
        seed=(1, "seed of the runs"),
        target=(0.94, "validation accuracy to reach"),
    )
    parser.add_argument("--recipe", choices=RECIPES, help="measure this recipe alone")
    parser.add_argument(
        "--normalization",
        nargs="*",
        choices=NORMALIZED,
        help="compare batch normalisations alone, in these recipes (default: all three)",
    )
    parser.add_argument("--epochs", type=int, help="instead of each recipe's own number")
    parser.add_argument("--runs", type=Path, help="keep the run folders there, as `train` does")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    if options.normalization is not None:
        _print_normalizations(options.normalization or NORMALIZED, options.steps)
        return
    data = load("cifar10", data_dir=default_data_dir())
    entries = [recipes.find(name) for name in RECIPES if options.recipe in (None, name)]
    names = {entry: f"{entry.name}-seed{options.seed}" for entry in entries}
    for name in names.values():
        if options.runs and (options.runs / name).exists():
            parser.error(f"{options.runs / name} exists. A resumed run cannot be timed.")
    steps = [compare_batches(entry, data, options.steps) for entry in entries]
    with tempfile.TemporaryDirectory() as scratch:
        runs = options.runs or Path(scratch)
        rows = [train(entry, data, runs / name, options) for entry, name in names.items()]
    _print_machine()
    print(table(["recipe", "step, batch ready", "step, batch gathered", "ratio (spread)"], steps))
    head = ["recipe", "epochs", "wall", "epoch", "images/s", f"to {options.target:.0%}", "best"]
    print(f"\n{table(head, rows)}")


def _print_normalizations(names: Sequence[str], steps: int) -> None:
    rows = [
        compare_normalizations(entry, len(SOURCES[entry.dataset].labels), steps)
        for entry in map(recipes.find, names)
    ]
    _print_machine()
    print(table(["recipe", "step, Keras' layer", "step, ours", "ratio (spread)"], rows))


def _print_machine() -> None:
    devices = keras.distribution.list_devices()
    print(f"\n{keras.backend.backend()} on {', '.join(devices)}, {cores()} cores\n")


if __name__ == "__main__":
    main()
