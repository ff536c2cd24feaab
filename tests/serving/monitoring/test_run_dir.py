"""The folder of a run: it goes with the run, however that ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from serving.monitoring import run_dir
from tests.serving.running import ROOT

HOLDS = (
    "import sys; from serving.monitoring.run_dir import *; "
    "hold(Path(sys.argv[1])); print(1); input()"
)


def test_the_folder_of_a_run_that_was_killed_is_removed_by_the_next(tmp_path: Path) -> None:
    first = run_dir.made(tmp_path)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, first],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"1\n"
    second = run_dir.made(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([first, second])
    os.kill(other.pid, signal.SIGKILL)
    other.communicate()
    third = run_dir.made(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([second, third])  # the second begins yet


def test_where_memory_is_not_to_be_had_the_folder_is_temporary(tmp_path: Path) -> None:
    made = run_dir.made(tmp_path / "none")
    assert made.is_dir()
    made.rmdir()
