"""The benchmarks run and print their tables; what they measure is not asserted."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.reporting.promises import ACCURACY, PAGE
from bench.rig.environment import program
from bench.rig.service import ROOT
from tests.tiny_data import write_tiny_data


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if program(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


needs_wrk = needs("wrk")


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"bench.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return Path(shutil.copy(PAGE, tmp_path))


def training(tmp_path: Path, *arguments: str) -> str:
    data = str(write_tiny_data(tmp_path))
    fast = ("--epochs=1", "--steps=1", "--target=0.01")
    done = run("training", *fast, *arguments, DATA_DIR=data)
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


def test_the_benchmark_of_reloads_prints_its_table() -> None:
    command = [sys.executable, "-m", "bench.robustness.reloads", "--reloads=3", "--clients=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\| (\d+) \|.*\| 0 \|$", done.stdout, re.MULTILINE) == ["1", "3"]


@needs_wrk
@pytest.mark.slow
def test_the_comparison_writes_its_tables_and_its_plot(page: Path) -> None:
    done = run("serving", "--quick", "--models", "digits", "--page", str(page))
    assert done.returncode == 0, done.stderr
    for server in ("Convserve", "FastAPI, uvicorn", "Flask, gunicorn"):
        assert re.search(rf"^\| {server} \| [\d.,]+ · [\d.,]+ \|$", page.read_text(), re.MULTILINE)
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


RUNS = {
    "footprint": ["--seconds=1"],
    "precision": ["--rounds=1", "--seconds=0.05"],
    "kills": ["--seconds=4", "--every=2", "--clients=4"],
    "hostile": ["--count=30"],
    "soak": ["--seconds=4", "--every=1"],
    "overload": ["--seconds=2", "--window=1", "--model=digits", "--bad", "aborted"],
}


@needs_wrk
@pytest.mark.slow
@pytest.mark.parametrize("module", RUNS)
def test_a_benchmark_of_promises_writes_its_table(module: str, page: Path, tmp_path: Path) -> None:
    into = {"hostile": ["--save", str(tmp_path)], "soak": ["--out", str(tmp_path)]}
    done = run(module, *RUNS[module], *into.get(module, []), "--page", str(page))
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"^\| .* \| (yes|\*\*no\*\*) \|$", page.read_text(), re.MULTILINE)


@pytest.fixture
def accuracy(tmp_path: Path) -> Path:
    return Path(shutil.copy(ACCURACY, tmp_path))


@needs("postgres", "prometheus")
@pytest.mark.slow
def test_the_benchmark_of_feedback_keeps_its_promises(accuracy: Path) -> None:
    few = ("--posts=600", "--clients=4", "--every=1")
    done = run("feedback", *few, "--page", str(accuracy))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\| .* \| yes \|$", accuracy.read_text(), re.MULTILINE)


@needs("postgres", "prometheus", "nginx")
@pytest.mark.slow
def test_the_benchmark_of_drift_tells_its_days_and_draws_them(
    accuracy: Path, tmp_path: Path
) -> None:
    plot, data = tmp_path / "drift.png", write_tiny_data(tmp_path / "data")
    few = ("--day=10", "--rate=32", f"--plot={plot}", f"--data-dir={data}")
    done = run("drift", *few, "--page", str(accuracy))
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"^\| requests that failed \| 0 \| 0 \| yes \|$", done.stdout, re.MULTILINE)
    assert plot.read_bytes().startswith(b"\x89PNG")


@needs_wrk
@pytest.mark.slow
def test_the_benchmark_of_ids_writes_its_table(accuracy: Path) -> None:
    few = ("--seconds=1", "--rounds=1", "--models=digits")
    done = run("ids", *few, "--page", str(accuracy))
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"^\| a scrape after [1-9]", accuracy.read_text(), re.MULTILINE)
