"""Count the processors that the service may use. Knows kernel files and nothing else."""

import os
from pathlib import Path


def cores(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the number of processors of this process: its CPU affinity or its cgroup v2 quota,
    whichever is less.

    onnxruntime, like most libraries, counts the processors of the host and ignores the quota.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    limits = [float(len(affinity(0)) if affinity else os.cpu_count() or 1)]
    for folder in _cgroups(groups, own):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if quota.isdigit():
            limits.append(int(quota) / int(period))
    return max(1, int(min(limits)))


def _cgroups(groups: Path, own: Path) -> list[Path]:
    """Return the folders of this process's cgroup and of its ancestors."""
    path = next((line[3:] for line in _read(own).splitlines() if line.startswith("0::")), "/")
    folder = groups / path.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(groups))]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
