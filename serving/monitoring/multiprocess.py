"""Where the values of the series lie if there are several workers: in files, by slot and version.

Knows prometheus-client's format of such files; knows no series. What counts everything lies in the
folder of the run, in files of the worker's slot. What counts one version lies in a folder of the
version, ``versions/<name>/<version>/``, in a file of each slot, so that it can be dropped: by a
rename of the folder, for all workers at once. If they dropped their parts one by one, the sum would
fall to the parts that are left, and ``rate()`` would take these for new counts.
"""

import fcntl
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

VERSIONS = "versions"
SERVES = "gauge_livemax"  # the files whose presence says that a worker serves a version

Version = tuple[str, int]


class _File(MmapedDict):
    """Closed with the last value in it."""

    def __del__(self) -> None:
        self.close()  # type: ignore[no-untyped-call]


class Value:
    """One number in a file."""

    def __init__(self, file: _File, key: str, lock: threading.Lock) -> None:
        self._file, self._key, self._lock = file, key, lock
        self._value: float = file.read_value(key)[0]  # type: ignore[no-untyped-call]

    def inc(self, amount: float) -> None:
        """Add to it."""
        with self._lock:
            self._value += amount
            self._file.write_value(self._key, self._value, 0.0)  # type: ignore[no-untyped-call]

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002
        """Replace it."""
        with self._lock:
            self._value = value
            self._file.write_value(self._key, value, 0.0)  # type: ignore[no-untyped-call]

    def get(self) -> float:
        """What it is."""
        return self._value


class Counts(Collector):
    """The files of one run, as the worker in one slot writes them and all are read."""

    def __init__(self, run: Path, slot: int) -> None:
        self._run, self._slot = run, slot
        self._files: WeakValueDictionary[Path, _File] = WeakValueDictionary()
        self._lock = threading.Lock()

    def value(
        self,
        kind: str,
        metric: str,
        name: str,
        labels: Sequence[str],
        texts: Sequence[str],
        about: str,
        multiprocess_mode: str = "",
    ) -> Value:
        """A value of prometheus-client's, where the worker that had the slot before left it."""
        told = dict(zip(labels, texts, strict=True))
        mode = f"_{multiprocess_mode}" if multiprocess_mode else ""
        path = self._folder_of(told) / f"{kind}{mode}_{self._slot}.db"
        with self._lock:
            if (file := self._files.get(path)) is None or not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                file = self._files[path] = _File(path)  # type: ignore[no-untyped-call]
            return Value(file, mmap_key(metric, name, list(labels), list(texts), about), self._lock)

    def holds(self, version: Version) -> bool:
        """Whether this worker's counts of it are there."""
        return (self._folder(version) / f"counter_{self._slot}.db").exists()

    def retire(self, version: Version) -> None:
        """This worker serves it no longer."""
        with self.alone():
            (self._folder(version) / f"{SERVES}_{self._slot}.db").unlink(missing_ok=True)

    def sweep(self, kept: int) -> None:
        """Drop the versions that no worker serves, but for so many: those served last."""
        with self.alone():
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
    def alone(self) -> Iterator[None]:
        """While no other worker begins to serve a version, or drops one."""
        with (self._run / "versions.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def collect(self) -> Collection[Metric]:
        """All series, the sum of all slots."""
        while True:
            # A version that is dropped meanwhile takes all its files with it: once more, without.
            with suppress(FileNotFoundError):
                found = (*self._run.glob("*.db"), *self._run.glob(f"{VERSIONS}/*/*/*.db"))
                files = [str(path) for path in found if path.stat().st_size]
                merged: Collection[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
                return merged

    def _folder(self, version: Version) -> Path:
        return self._run / VERSIONS / version[0] / str(version[1])

    def _folder_of(self, labels: Mapping[str, str]) -> Path:
        """Of two versions in one series the higher comes and goes."""
        if "version" not in labels:
            return self._run
        version = max(int(labels["version"]), int(labels.get("shadow", 0)))
        return self._folder((labels["model"], version))


def forget(run: Path, slot: int) -> None:
    """A worker is gone, and with it all but its counts."""
    for folder in (run, *run.glob(f"{VERSIONS}/*/*")):
        with suppress(FileNotFoundError):  # another worker drops it
            mark_process_dead(slot, str(folder))  # type: ignore[no-untyped-call]
