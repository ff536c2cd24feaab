"""The benchmarks run and print their tables; the figures are not asserted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.rig.service import ROOT
from bench.throughput import ab, precision, serving
from tests.bench.needs import needs
from tests.tiny_data import write_tiny_data
from tests.training import tiny


@needs("wrk")
def test_the_comparison_writes_its_tables_and_its_plot(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PAUSE": 0,
        "WARM_SECONDS": 1,
        "OPEN_SHARES": (0.5,),
        "BATCHES": (1,),
    }.items():
        monkeypatch.setattr(serving, name, value)
    assert serving.main(["--quick", "--models", "digits", "--page", str(page)]) == 0
    for server in ("Convserve", "FastAPI, uvicorn", "Flask, gunicorn"):
        assert re.search(rf"^\| {server} \| [\d.,]+ · [\d.,]+ \|$", page.read_text(), re.MULTILINE)
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@needs("wrk")
def test_the_flask_application_under_gunicorn_takes_turns_with_the_service(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PAUSE": 0, "WARM_SECONDS": 1, "BATCHES": (1,)}.items():
        monkeypatch.setattr(serving, name, value)
    command = ["--quick", "--decision", "--models", "digits", "--page", str(page)]
    assert serving.main(command) == 0
    row = r"^\| its Flask application, gunicorn's threads \| [\d.,]+ · [\d.,]+ \|$"
    assert re.search(row, page.read_text(), re.MULTILINE)


@needs("wrk")
def test_two_checkouts_are_compared_in_turn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ab, "PAUSE", 0)
    monkeypatch.setattr(ab, "WARM_SECONDS", 1)
    few = ["--rounds=2", "--seconds=1", "--models", "digits", "--clients", "8"]
    assert ab.main(["--other", str(ROOT), *few]) == 0
    row = r"^\| `digits`, 8 clients \| [\d.,]+ \| [\d.,]+ \| [\d.]+ \| [\d.]+ \([\d.]+–[\d.]+\) \|$"
    assert re.search(row, capsys.readouterr().out, re.MULTILINE)


def test_a_folder_without_the_service_is_not_compared(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        ab.main(["--other", str(tmp_path)])


def test_the_precisions_take_turns(page: Path) -> None:
    assert precision.main(["--rounds=1", "--seconds=0.05", "--page", str(page)]) in (0, 1)
    text = page.read_text()
    assert re.search(r"^\| `digits`: float32's time ÷ int8's .* \| yes \|$", text, re.MULTILINE)


def test_the_benchmark_of_training_prints_its_tables(tmp_path: Path) -> None:
    few = ("--recipe=cifar10_sixconv", "--epochs=1", "--steps=1", "--target=0.01")
    done = subprocess.run(
        [sys.executable, "-m", "bench.throughput.training", *few],
        cwd=ROOT,
        env={**os.environ, "DATA_DIR": str(write_tiny_data(tmp_path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, text = "cifar10_sixconv", done.stdout
    assert re.search(rf"^\| `{name}` \| \d+ ms \| \d+ ms \| [\d.]+ ", text, re.MULTILINE)
    assert re.search(rf"^\| `{name}` \| 1 \| \d+ s \| [\d.]+ s \| ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [([], ["cifar10", "cifar10_sixconv"]), (["--recipe=cifar10_sixconv"], ["cifar10_sixconv"])],
    ids=["all", "one"],
)
def test_the_benchmark_of_training_measures_each_network_or_one(
    arguments: list[str],
    names: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench.throughput import training

    monkeypatch.setenv("DATA_DIR", str(write_tiny_data(tmp_path)))
    for name, cells in {"train": 7, "compare_batches": 4}.items():
        row = ["1"] * (cells - 1)
        monkeypatch.setattr(training, name, lambda entry, *_, row=row: [f"`{entry.name}`", *row])
    training.main(arguments)
    rows = re.findall(r"^\| `(\w+)`", capsys.readouterr().out, re.MULTILINE)
    assert rows == names * 2


def test_an_existing_run_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.throughput import training

    monkeypatch.setenv("DATA_DIR", str(write_tiny_data(tmp_path)))
    (tmp_path / "runs/cifar10-seed1").mkdir(parents=True)
    for arguments in (["--runs", str(tmp_path / "runs")], ["--help"]):
        with pytest.raises(SystemExit):
            training.main(arguments)


def test_steps_with_keras_own_normalization_and_with_ours_take_turns() -> None:
    from bench.throughput import training

    row = training.compare_normalizations(tiny.RECIPE, 2, steps=2)
    assert row[0] == "`tiny`"
    assert re.fullmatch(r"\d+ ms \d+ ms [\d.]+ \([\d.]+–[\d.]+\)", " ".join(row[1:]))


def test_the_comparison_of_normalizations_reads_no_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bench.throughput import training

    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setattr(
        training, "compare_normalizations", lambda entry, *_: [f"`{entry.name}`", "1", "1", "1"]
    )
    training.main(["--normalization"])
    training.main(["--normalization", "digits"])
    rows = re.findall(r"^\| `(\w+)`", capsys.readouterr().out, re.MULTILINE)
    assert rows == ["digits", "cifar10", "cats_vs_dogs", "digits"]
