"""Train the tiny recipe as one of several hosts on this machine, or as the only one.

``python -m tests.training.one_host RUN COUNT INDEX PORT``; a process has one Keras backend, so the
tests start this one as another process.
"""

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import keras

from tests.training import tiny
from training.fitting.distributed import follow_first, joined
from training.fitting.fit import fit
from training.fitting.launcher import Hosts
from training.modelling.augment import RandomResizedCrop, RandomShift

RECIPE = replace(
    tiny.RECIPE,
    augment=lambda: [
        keras.layers.RandomFlip(seed=1),
        RandomShift(1, seed=2),
        RandomResizedCrop(seed=3),
    ],
)
DATA = replace(tiny.dataset(), validation=tiny.split(301, 2))  # not divisible by two or four hosts


class NoTensorFlow:
    """Simulate a host without TensorFlow."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "tensorflow":
            raise ModuleNotFoundError(name)


def main(run: Path, count: int, index: int, port: int) -> None:
    hosts = Hosts(f"127.0.0.1:{port}", count, index)
    with joined(hosts, patience=600) if count > 1 else nullcontext():
        if count > 1:
            follow_first(run)
        fit(RECIPE, DATA, run=run, precision="float32", verbose=0)


if __name__ == "__main__":
    sys.meta_path.insert(0, NoTensorFlow)
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
