"""The in-process limit: decode and infer, without HTTP, in one process for each core.

The same pixel code and the same session as the service, on the same files. ``python -m
bench.throughput.limit MODEL BATCH SECONDS FILE…`` is one of the processes: it prints a line when
it is ready, and begins when it reads one.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.clients.wrk import written
from bench.rig.service import ROOT, WORKERS

BATCHES = (1, 16, 32)  # the second is the service's largest, the third that of the forms


def limit(model: Path, files: Sequence[bytes], *, batch: int, seconds: float) -> float:
    """Images a second of all processes together."""
    with written(files) as paths:
        command = [
            sys.executable,
            "-m",
            "bench.throughput.limit",
            str(model),
            str(batch),
            str(seconds),
        ]
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
                raise RuntimeError(f"{model} could not be run in this process.")
        for process in processes:
            print(file=process.stdin, flush=True)
        return sum(float(process.communicate()[0]) for process in processes)


def main(file: str, batch: str, seconds: str, *paths: str) -> None:
    """One process."""
    import numpy as np

    from serving.inference.images.pixels import read
    from serving.inference.models.model import Model

    folder = Path(file).parent
    model = Model(Path(file), name=folder.parent.name, version=int(folder.name))
    files = [Path(path).read_bytes() for path in paths]

    def step(turn: int) -> None:
        chosen = (files[(turn + place) % len(files)] for place in range(int(batch)))
        model.predict(np.stack([read(each, model.spec, max_pixels=10**8) for each in chosen]))

    for turn in range(3):
        step(turn)
    print("ready", flush=True)
    sys.stdin.readline()
    began, turn = time.perf_counter(), 0
    while time.perf_counter() - began < float(seconds):
        step(turn)
        turn += 1
    print(turn * int(batch) / (time.perf_counter() - began))


if __name__ == "__main__":
    main(*sys.argv[1:])
