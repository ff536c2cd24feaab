"""The in-process limit: decode and infer, without HTTP, in one process for each core.

Uses the pixel code and the session of the service, on the same files.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count, repeat
from pathlib import Path
from threading import Barrier

from bench.reporting.figures import seconds_per_call
from bench.rig.service import WORKERS

BATCHES = (1, 16, 32)  # the second is the service's largest, the third that of the forms
PATIENCE = 60.0  # seconds for all processes to load the model

_together: Barrier  # of a process: all begin at the same time


def limit(model: Path, files: Sequence[bytes], *, batch: int, seconds: float) -> float:
    """Return the images per second of all processes together."""
    spawn = multiprocessing.get_context("spawn")
    together = (spawn.Barrier(WORKERS, timeout=PATIENCE),)
    with ProcessPoolExecutor(WORKERS, spawn, initializer=_share, initargs=together) as processes:
        same = map(repeat, (model, files, batch, seconds))
        return sum(processes.map(_speed, range(WORKERS), *same))


def _share(together: Barrier) -> None:
    global _together
    _together = together


def _speed(_number: int, file: Path, files: Sequence[bytes], batch: int, seconds: float) -> float:
    """Return the images per second of this process."""
    import numpy as np

    from serving.inference.images.pixels import read
    from serving.inference.models.model import Model

    model = Model(file, name=file.parent.parent.name, version=int(file.parent.name))
    turns = count()

    def step() -> None:
        turn = next(turns)
        chosen = (files[(turn + place) % len(files)] for place in range(batch))
        model.predict(np.stack([read(each, model.spec, max_pixels=10**8) for each in chosen]))

    for _ in range(3):
        step()
    _together.wait()
    return batch / seconds_per_call(step, seconds)
