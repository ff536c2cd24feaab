"""The benchmarks run and print their tables; what they measure is not asserted."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.tiny_data import write_tiny_data


def training(tmp_path: Path, *arguments: str) -> str:
    environment = {**os.environ, "DATA_DIR": str(write_tiny_data(tmp_path))}
    command = [sys.executable, "-m", "bench.training", "--epochs=1", "--steps=1", "--target=0.01"]
    done = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_benchmark_of_training_prints_a_row_for_each_network(tmp_path: Path) -> None:
    table = training(tmp_path)
    for name in ("cifar10", "cifar10_sixconv"):
        assert re.search(rf"^\| `{name}` \| \d+ ms \| \d+ ms \| [\d.]+ ", table, re.MULTILINE)
        assert re.search(rf"^\| `{name}` \| 1 \| \d+ s \| [\d.]+ s \| ", table, re.MULTILINE)


def test_the_benchmark_of_training_measures_one_network_alone(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(\w+)`", training(tmp_path, "--recipe=cifar10_sixconv"), re.MULTILINE)
    assert rows == ["cifar10_sixconv"] * 2
