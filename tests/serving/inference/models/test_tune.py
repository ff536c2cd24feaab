"""The report of ``tune``, and one short measurement."""

from pathlib import Path

import pytest

from serving.__main__ import main
from serving.inference.models import tune
from serving.settings import Settings
from serving.inference.models.tune import Compared, Offline, advice, report
from tests.serving.samples import add_int8, publish

STEADY = (100.0, 101.0, 99.0, 100.0, 100.0)


def compared(setting: str, *then: float, model: str = "shade 1") -> Compared:
    return Compared(model, setting, 1, STEADY, then)


@pytest.mark.parametrize(
    ("then", "verdict"),
    [
        ((150.0, 149.0, 151.0), 1),
        ((150.0, 100.5, 151.0), 0),  # one round was within the noise
        ((104.0, 103.0, 102.0), 0),  # steadily, but hardly
        ((50.0, 51.0, 52.0), -1),
        ((50.0, 51.0, 99.5), 0),
    ],
)
def test_a_difference_within_the_noise_does_not_count(then: tuple[float, ...], verdict: int) -> None:
    assert compared("CONVSERVE_ARENA=off", *then).verdict == verdict


def test_a_setting_that_helps_one_model_and_harms_none_is_advised() -> None:
    results = [compared("CONVSERVE_ARENA=off", 150), compared("CONVSERVE_ARENA=off", *STEADY)]
    assert advice(results) == ["CONVSERVE_ARENA=off"]


def test_a_setting_that_harms_a_model_is_not_advised() -> None:
    results = [compared("CONVSERVE_ARENA=off", 150), compared("CONVSERVE_ARENA=off", 50)]
    assert advice(results) == []


def test_the_best_value_of_a_setting_is_advised() -> None:
    results = [compared(f"CONVSERVE_INTRA_THREADS={n}", 100 + 20 * n) for n in (2, 8, 4)]
    assert advice([*results, compared("CONVSERVE_ARENA=off", 200)]) == [
        *("CONVSERVE_INTRA_THREADS=8", "CONVSERVE_ARENA=off")
    ]


def test_the_report_shows_every_figure_and_ends_with_the_advice() -> None:
    text = report(
        [compared("CONVSERVE_ARENA=off", 1500)],
        {"shade 1": [1, 20, 300, 4000, 5]},
        [Offline("shade 1", 0.0567, 0.01, 1.02)],
    )
    lines = text.splitlines()
    assert "| shade 1 | 56.7 | 10.0 | 1.02 |" in lines
    assert "| shade 1 | `CONVSERVE_ARENA=off` | 1 | 100 | 1,500 | 15.00 faster |" in lines
    assert "| shade 1 | 1 | 20 | 300 | 4,000 | 5 |" in lines
    assert lines[-1] == "CONVSERVE_ARENA=off"


def test_nothing_is_advised_if_nothing_is_faster() -> None:
    text = report([compared("CONVSERVE_ARENA=off", *STEADY)], {}, [])
    assert text.endswith("\nNo setting is faster than the current one beyond the noise.")


def test_every_other_value_is_compared_with_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "cores", lambda: 4)
    monkeypatch.setattr("serving.settings.cores", lambda: 4)
    others = tune._others(Settings(intra_threads=4, precision="int8", arena="off"))
    assert {setting: other.processes for setting, other in others.items()} == {
        "CONVSERVE_PRECISION=float32": 1,
        "CONVSERVE_INTRA_THREADS=1": 4,
        "CONVSERVE_INTRA_THREADS=2": 2,
        "CONVSERVE_ARENA=on": 1,
        "CONVSERVE_OPTIMISATION=extended": 1,
        "CONVSERVE_OPTIMISATION=basic": 1,
    }


def test_the_highest_version_of_each_model_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in (2, 10):
        publish(tmp_path, version=version)
    add_int8(publish(tmp_path, name="both"))
    monkeypatch.setenv("CONVSERVE_MODELS", str(tmp_path))
    assert main(["tune", "--seconds", "0.1"]) == 0
    printed = capsys.readouterr().out
    assert "| shade 10 | `CONVSERVE_ARENA=off` | 8 | " in printed
    assert "| both 1 | `CONVSERVE_PRECISION=float32` | 1 | " in printed
    assert [line[:10] for line in printed.partition("| Graph ")[2].splitlines()[2:4]] == [
        *("| both 1 |", "| shade 10")
    ]
    assert "shade 2" not in printed
    assert "| shade 10 | `CONVSERVE_PRECISION" not in printed


def test_an_empty_folder_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONVSERVE_MODELS", str(tmp_path))
    assert main(["tune"]) == 1
    assert "No model is published in" in capsys.readouterr().err
