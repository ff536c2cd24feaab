"""The folder of a run is removed, however the run ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.monitoring import run_dir
from tests.serving.running import ROOT

LOCKED = (
    "import sys; from serving.monitoring.run_dir import *; "
    "lock(Path(sys.argv[1])); print(1); input()"
)


def test_the_folder_of_a_run_that_was_killed_is_removed_by_the_next(tmp_path: Path) -> None:
    first = run_dir.create(tmp_path)
    other = subprocess.Popen(
        [sys.executable, "-c", LOCKED, first],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"1\n"
    second = run_dir.create(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([first, second])
    os.kill(other.pid, signal.SIGKILL)
    other.communicate()
    third = run_dir.create(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([second, third])  # the second has no lock yet


def test_processes_of_a_run_share_its_start_and_a_secret(tmp_path: Path) -> None:
    os.close(run_dir.lock(tmp_path))
    assert abs(time.time() - run_dir.started_at(tmp_path)) < 60
    assert len(run_dir.key(tmp_path)) == 64


def test_without_shared_memory_the_folder_is_a_temporary_one(tmp_path: Path) -> None:
    created = run_dir.create(tmp_path / "none")
    assert created.is_dir()
    created.rmdir()


def test_without_room_in_shared_memory_the_folder_is_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_dir, "ROOM", 2**62)  # more than any file system has
    created = run_dir.create(tmp_path)
    created.rmdir()
    assert created.parent != tmp_path
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(run_dir, "ROOM", 4096)
    assert run_dir.create(tmp_path).parent == tmp_path
