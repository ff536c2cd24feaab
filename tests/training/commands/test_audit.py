from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_data import write_tiny_data
from tests.training import tiny
from training.__main__ import main
from training.commands.audit import cross_validated, suspects
from training.data.splits import Split

WRONG = (7, 40, 93)


def test_images_with_a_wrong_label_are_listed_first(tmp_path: Path) -> None:
    data = tiny.dataset()
    labels = data.train.labels.copy()
    labels[list(WRONG)] = 1 - labels[list(WRONG)]
    names = tuple(f"{row}.jpg" for row in range(len(labels)))
    data = replace(data, train=Split(data.train.images, labels, names))
    answers = cross_validated(tiny.RECIPE, data, runs=tmp_path, folds=3, epochs=6, verbose=0)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    listed = suspects(data, answers)
    assert {each.row for each in listed[:3]} == set(WRONG)
    assert all(each.label != each.likeliest for each in listed[:3])
    assert all(each.name == f"{each.row}.jpg" for each in listed)
    assert len(list(tmp_path.glob("tiny-audit-seed1-fold?of3/state.json"))) == 3


def test_the_command_reads_training_images_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(write_tiny_data(tmp_path / "data")))
    few = ["--folds=2", "--epochs=1", "--worst=5", "--precision=float32"]
    assert main(["audit", "digits_conv5", *few]) == 0
    lines = capsys.readouterr().out.splitlines()[-5:]
    assert all(line.split()[-2] == "train" and int(line.split()[-1]) < 240 for line in lines)
    chances = [float(line.split()[0]) for line in lines]
    assert chances == sorted(chances)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit", "cats_vs_dogs_mlp"], "returns a score and no probability"),
        (["audit", "dogs"], "No recipe or model named 'dogs'"),
    ],
)
def test_a_recipe_that_cannot_be_audited_exits_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_one_fold_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["audit", "digits", "--folds=1"])
    assert "expected at least 2" in capsys.readouterr().err
