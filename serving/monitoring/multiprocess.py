"""Store the values of several workers' series in files, by slot and version.

Series without a version lie in the folder of the run, one file per slot. Those of a version lie in
``versions/<name>/<version>/`` and are dropped for all workers at once by renaming that folder: if
each dropped its part alone, the sum would fall to the parts left, which ``rate()`` counts as new.

The blocks of a file are allocated before it is mapped: where the memory of the folder is full, a
write to a sparse file would end the process with SIGBUS. Series without room are counted in the
memory of the worker alone, and are missing from the page.
"""

import fcntl
import logging
import os
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.values import MutexValue

from serving.monitoring.run_dir import allocate

logger = logging.getLogger(__name__)

ALLOCATED = 16 * 1024  # bytes of a new file; it doubles when it is full
ENTRY = 28  # bytes of an entry beside its key, at most
VERSIONS = "versions"
SERVES = "gauge_livemax"  # the file of a slot that exists while its worker serves the version

Version = tuple[str, int]


class _File(MmapedDict):
    """A mapped file, closed with its last value; raises OSError if there is no room for more."""

    _f: BinaryIO | None = None  # type: ignore[assignment]  # until it is open

    def __init__(self, path: Path) -> None:
        with path.open("ab") as file:
            if not file.tell():
                allocate(file.fileno(), ALLOCATED)
        super().__init__(path)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        """Add an entry, as the base class does: it doubles the file until the entry fits."""
        capacity: int = self._capacity
        while self._used + len(key.encode()) + ENTRY > capacity:
            capacity *= 2
        if capacity > self._capacity and self._f is not None:
            allocate(self._f.fileno(), capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def __del__(self) -> None:
        self.close()  # type: ignore[no-untyped-call]


class Value:
    """One number in a file, as prometheus-client uses it."""

    def __init__(self, file: _File, key: str, lock: threading.Lock) -> None:
        self._file, self._key, self._lock = file, key, lock
        self._value: float = file.read_value(key)[0]  # type: ignore[no-untyped-call]

    def inc(self, amount: float) -> None:
        """Add to the number."""
        with self._lock:
            self._value += amount
            self._file.write_value(self._key, self._value, 0.0)  # type: ignore[no-untyped-call]

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002
        """Replace the number."""
        with self._lock:
            self._value = value
            self._file.write_value(self._key, value, 0.0)  # type: ignore[no-untyped-call]

    def get(self) -> float:
        """Return the number."""
        return self._value


class SharedCounts:
    """The files of one run: written by the worker in one slot, read for all slots."""

    def __init__(self, run: Path, slot: int) -> None:
        self._run, self._slot = run, slot
        self._files: WeakValueDictionary[Path, _File] = WeakValueDictionary()
        self._lock = threading.Lock()
        self._full = False

    def value(
        self,
        kind: str,
        metric: str,
        name: str,
        labels: Sequence[str],
        texts: Sequence[str],
        about: str,
        multiprocess_mode: str = "",
    ) -> Value | MutexValue:
        """Return a value for prometheus-client, continuing that of the slot's previous worker; one
        in memory if there is no room for it."""
        mode = f"_{multiprocess_mode}" if multiprocess_mode else ""
        folder = self._folder_of(dict(zip(labels, texts, strict=True)))
        path = folder / f"{kind}{mode}_{self._slot}.db"
        try:
            with self._lock:
                if (file := self._files.get(path)) is None or not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    file = self._files[path] = _File(path)
                key = mmap_key(metric, name, list(labels), list(texts), about)
                return Value(file, key, self._lock)
        except OSError as exc:
            self._report(path, exc)
            return MutexValue(kind, metric, name, labels, texts, about)  # type: ignore[no-untyped-call]

    def _report(self, path: Path, exc: OSError) -> None:
        """Log once that there is no room."""
        if not self._full:
            extra = {"path": str(path), "reason": exc.strerror}
            logger.warning(
                "no room for the counts of this worker: /metrics lacks some", extra=extra
            )
        self._full = True

    def holds(self, version: Version) -> bool:
        """Return True if this worker's counts of a version still exist."""
        return (self._folder(version) / f"counter_{self._slot}.db").exists()

    def retire(self, version: Version) -> None:
        """Note that this worker no longer serves a version."""
        folder, now = self._folder(version), time.time_ns()
        with self.lock(), suppress(FileNotFoundError):
            (folder / f"{SERVES}_{self._slot}.db").unlink()
            os.utime(folder, ns=(now, now))  # the kernel's own clock may tick every 4 ms

    def sweep(self, kept: int) -> None:
        """Drop the versions that no worker serves, except the ``kept`` ones retired last."""
        with self.lock():
            retired = [
                folder
                for folder in self._run.glob(f"{VERSIONS}/*/*")
                if not any(folder.glob(f"{SERVES}_*"))
            ]
            retired.sort(key=lambda folder: folder.stat().st_mtime_ns)
            for folder in retired[:-kept]:
                gone = self._run / f".gone-{self._slot}"
                shutil.rmtree(gone, ignore_errors=True)
                folder.rename(gone)
                shutil.rmtree(gone)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other workers from adding, retiring or dropping a version."""
        with (self._run / "versions.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def collect(self) -> Collection[Metric]:
        """Return all series, summed over the slots."""
        while True:
            # A version dropped in between takes its files with it: try again without them.
            with suppress(FileNotFoundError):
                found = (*self._run.glob("*.db"), *self._run.glob(f"{VERSIONS}/*/*/*.db"))
                files = [str(path) for path in found if path.stat().st_size]
                merged: Collection[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
                return merged

    def _folder(self, version: Version) -> Path:
        return self._run / VERSIONS / version[0] / str(version[1])

    def _folder_of(self, labels: Mapping[str, str]) -> Path:
        """Return the folder of a series; a shadow's is that of the higher of its two versions."""
        if "version" not in labels:
            return self._run
        version = max(int(labels["version"]), int(labels.get("shadow", 0)))
        return self._folder((labels["model"], version))


def forget(run: Path, slot: int) -> None:
    """Remove the gauges of a worker that has ended; its counts stay."""
    for folder in (run, *run.glob(f"{VERSIONS}/*/*")):
        with suppress(FileNotFoundError):  # dropped by another worker
            mark_process_dead(slot, str(folder))  # type: ignore[no-untyped-call]
