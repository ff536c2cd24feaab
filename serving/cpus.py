"""How many processors the service may use. Knows the files of the kernel and nothing else."""

import os
from pathlib import Path


def cores(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Processors this process may use: its affinity, or its cgroup v2 quota where that is less.

    onnxruntime, like most libraries, counts the processors of the host and ignores the quota.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    found = [float(len(affinity(0)) if affinity else os.cpu_count() or 1)]
    for folder in _own_groups(groups, own):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if quota.isdigit():
            found.append(int(quota) / int(period))
    return max(1, int(min(found)))


def _own_groups(groups: Path, own: Path) -> list[Path]:
    """The folders of this process's cgroup and of all that enclose it."""
    path = next((line[3:] for line in _read(own).splitlines() if line.startswith("0::")), "/")
    folder = groups / path.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(groups))]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
