"""How fast the training half trains: `make bench-train`.

Trains the CIFAR-10 recipe and the tutorial's network for some steps on batches that lie ready, and
on the same number that are gathered and shuffled as in training: the difference is what a step
waits for that. Then it trains both whole, each in a new run folder, and prints wall time, time of
an epoch with its validation and checkpoint, images a second and the time to an accuracy on
validation data. `--recipe` measures one of the two. On the device that Keras takes by default.
"""

import argparse
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

from training import recipes
from training.data.datasets import Dataset, default_data_dir, load
from training.data.splits import Split
from training.fitting.batches import Batches
from training.fitting.fit import fit, policy
from training.modelling.network import build, cores, trainable
from training.modelling.recipe import Recipe

RECIPES = ("cifar10", "cifar10_sixconv")


class Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """When each epoch ended, in seconds since training began, and its validation accuracy."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []
        self.accuracies: list[float] = []
        self._began = 0.0

    def on_train_begin(self, *_: Any) -> None:
        """Start."""
        self._began = time.perf_counter()

    def on_epoch_end(self, _epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note both."""
        self.ends.append(time.perf_counter() - self._began)
        self.accuracies.append((logs or {})["val_accuracy"])


def whole(entry: Recipe, data: Dataset, run: Path, options: argparse.Namespace) -> str:
    """Train as `train` does; one row of the table."""
    clock = Clock()
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
    spans = [end - start for start, end in zip([0.0, *clock.ends], clock.ends, strict=False)]
    epoch = statistics.median(spans)
    images = Batches(data.train, entry.batch_size, seed=1).steps * entry.batch_size
    reached = (
        f"{end:.0f} s"
        for end, accuracy in zip(clock.ends, clock.accuracies, strict=True)
        if accuracy >= options.target
    )
    return (
        f"| `{entry.name}` | {len(spans)} | {clock.ends[-1]:.0f} s | {epoch:.1f} s "
        f"| {images / epoch:,.0f} | {next(reached, 'never')} | {max(clock.accuracies):.2%} |"
    )


def waiting(entry: Recipe, data: Dataset, steps: int, rounds: int = 3) -> str:
    """How much longer a step takes where its batch must be gathered; the two ways take turns."""
    keras.config.set_dtype_policy(policy("auto"))
    model = trainable(entry, build(entry, len(data.labels)), steps=steps)
    size = entry.batch_size
    ready = Split(data.train.images[:size], data.train.labels[:size])
    some = Split(data.train.images[: size * steps], data.train.labels[: size * steps])
    times: dict[str, list[float]] = {"ready": [], "gathered": []}
    for turn in range(rounds + 1):  # the first compiles
        for name, batches in (
            ("ready", Same(ready, steps)),
            ("gathered", Batches(some, size, seed=1)),
        ):
            began = time.perf_counter()
            model.fit(batches, shuffle=False, verbose=0)
            if turn:
                times[name].append((time.perf_counter() - began) / steps)
    ratios = [g / r for g, r in zip(times["gathered"], times["ready"], strict=True)]
    keras.config.set_dtype_policy("float32")
    return (
        f"| `{entry.name}` | {statistics.median(times['ready']) * 1000:.0f} ms "
        f"| {statistics.median(times['gathered']) * 1000:.0f} ms "
        f"| {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |"
    )


class Same(Batches):
    """One batch again and again, without any work."""

    def __init__(self, split: Split, steps: int) -> None:
        super().__init__(split, len(split.labels))
        self._batch, self._count = (split.images, split.labels), steps

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, _index: int) -> Any:
        return self._batch


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.throughput.training", description=__doc__
    )
    parser.add_argument("--recipe", choices=RECIPES, help="this one alone")
    parser.add_argument("--epochs", type=int, help="instead of each recipe's own number")
    parser.add_argument("--steps", type=int, default=20, help="of the second table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=Path, help="keep the run folders there, as `train` does")
    parser.add_argument("--target", type=float, default=0.94, help="validation accuracy to reach")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    data = load("cifar10", data_dir=default_data_dir())
    entries = [recipes.find(name) for name in RECIPES if options.recipe in (None, name)]
    names = {entry: f"{entry.name}-seed{options.seed}" for entry in entries}
    for name in names.values():
        if options.runs and (options.runs / name).exists():
            parser.error(f"{options.runs / name} exists: a run that goes on cannot be timed.")
    waits = [waiting(entry, data, options.steps) for entry in entries]
    with tempfile.TemporaryDirectory() as scratch:
        runs = options.runs or Path(scratch)
        rows = [whole(entry, data, runs / name, options) for entry, name in names.items()]
    devices = keras.distribution.list_devices()
    print(f"\n{keras.backend.backend()} on {', '.join(devices)}, {cores()} cores\n")
    print("| recipe | step, batch ready | step, batch gathered | ratio (spread) |")
    print("| --- | --- | --- | --- |", *waits, sep="\n")
    print(f"\n| recipe | epochs | wall | epoch | images/s | to {options.target:.0%} | best |")
    print("| --- | --- | --- | --- | --- | --- | --- |", *rows, sep="\n")


if __name__ == "__main__":
    main()
