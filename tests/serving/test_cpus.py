"""Count processors by affinity and by quota."""

import os
from pathlib import Path

import pytest

from serving.cpus import cores


def test_without_affinity_the_processors_of_the_machine_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores(tmp_path, tmp_path) == os.cpu_count()


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", None)]
)
def test_the_processor_quota_of_the_cgroup_counts(
    tmp_path: Path, quota: str, expected: int | None
) -> None:
    own = tmp_path / "cgroup"
    own.write_text("1:cpu:/\n0::/pod/container\n")
    (tmp_path / "pod" / "container").mkdir(parents=True)
    (tmp_path / "pod" / "cpu.max").write_text(quota + "\n")
    assert cores(tmp_path, own) == (expected or cores(tmp_path / "none", own))
