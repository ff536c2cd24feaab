"""What is told of measurements, and one real measurement of a moment."""

from pathlib import Path

import pytest

from serving.inference.models import tune
from serving.__main__ import main
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
def test_what_is_within_the_noise_is_no_difference(then: tuple[float, ...], verdict: int) -> None:
    assert compared("CONVSERVE_ARENA=off", *then).verdict == verdict


def test_a_setting_that_helps_one_model_and_harms_none_is_advised() -> None:
    results = [compared("CONVSERVE_ARENA=off", 150), compared("CONVSERVE_ARENA=off", *STEADY)]
    assert advice(results) == ["CONVSERVE_ARENA=off"]


def test_a_setting_that_harms_a_model_is_not_advised() -> None:
    results = [compared("CONVSERVE_ARENA=off", 150), compared("CONVSERVE_ARENA=off", 50)]
    assert advice(results) == []


def test_of_the_values_of_one_setting_the_best_is_advised() -> None:
    results = [compared(f"CONVSERVE_INTRA_THREADS={n}", 100 + 20 * n) for n in (2, 8, 4)]
    assert advice([*results, compared("CONVSERVE_ARENA=off", 200)]) == [
        *("CONVSERVE_INTRA_THREADS=8", "CONVSERVE_ARENA=off")
    ]


def test_the_report_tells_every_figure_and_ends_with_what_to_set() -> None:
    told = report(
        [compared("CONVSERVE_ARENA=off", 1500)],
        {"shade 1": [1, 20, 300, 4000, 5]},
        [Offline("shade 1", 0.0567, 0.01, 1.02)],
    )
    lines = told.splitlines()
    assert "| shade 1 | 56.7 | 10.0 | 1.02 |" in lines
    assert "| shade 1 | `CONVSERVE_ARENA=off` | 1 | 100 | 1,500 | 15.00 faster |" in lines
    assert "| shade 1 | 1 | 20 | 300 | 4,000 | 5 |" in lines
    assert lines[-1] == "CONVSERVE_ARENA=off"


def test_where_nothing_is_better_nothing_is_advised() -> None:
    told = report([compared("CONVSERVE_ARENA=off", *STEADY)], {}, [])
    assert told.endswith("\nNothing beats what is set now by more than the noise.")


def test_what_is_set_is_compared_with_all_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "cores", lambda: 4)
    now, others = tune._ways(Settings(intra_threads=4, precision="int8", arena="off"))
    assert now.workers == Settings(intra_threads=4).processes
    assert {way.setting: way.workers for way in others} == {
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
    told = capsys.readouterr().out
    assert "| shade 10 | `CONVSERVE_ARENA=off` | 8 | " in told
    assert "| both 1 | `CONVSERVE_PRECISION=float32` | 1 | " in told
    assert [line[:10] for line in told.partition("| Graph ")[2].splitlines()[2:4]] == [
        *("| both 1 |", "| shade 10")
    ]
    assert "shade 2" not in told
    assert "| shade 10 | `CONVSERVE_PRECISION" not in told


def test_nothing_to_measure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONVSERVE_MODELS", str(tmp_path))
    assert main(["tune"]) == 1
    assert "No model is published in" in capsys.readouterr().err
