"""The in-process limit: decode and infer, without HTTP, in one process for each core.

Uses the pixel code and the session of the service, on the same files. ``python -m
bench.throughput.limit MODEL BATCH SECONDS FILE…`` is one of the processes: it prints a line when
it is ready, and begins when it reads one.
"""

import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from bench.clients.wrk import written
from bench.reporting.figures import seconds_per_call
from bench.rig.service import ROOT, WORKERS

BATCHES = (1, 16, 32)  # the second is the service's largest, the third that of the forms


def limit(model: Path, files: Sequence[bytes], *, batch: int, seconds: float) -> float:
    """Return the images per second of all processes together."""
    command = [sys.executable, "-m", "bench.throughput.limit", *map(str, (model, batch, seconds))]
    with written(files) as paths:
        processes = [
            subprocess.Popen(
                [*command, *map(str, paths)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(WORKERS)
        ]
        for process in processes:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{model} could not be run in a process.")
        for process in processes:
            print(file=process.stdin, flush=True)
        return sum(float(process.communicate()[0]) for process in processes)


def main(file: str, batch: str, seconds: str, *paths: str) -> None:
    """Print the images per second of this process."""
    import numpy as np

    from serving.inference.images.pixels import read
    from serving.inference.models.model import Model

    folder = Path(file).parent
    model = Model(Path(file), name=folder.parent.name, version=int(folder.name))
    files, size, turns = [Path(path).read_bytes() for path in paths], int(batch), count()

    def step() -> None:
        turn = next(turns)
        chosen = (files[(turn + place) % len(files)] for place in range(size))
        model.predict(np.stack([read(each, model.spec, max_pixels=10**8) for each in chosen]))

    for _ in range(3):
        step()
    print("ready", flush=True)
    sys.stdin.readline()
    print(size / seconds_per_call(step, float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
