import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.tables import ROOT
from tests.tiny_data import write_tiny_data
from training.__main__ import main
from training.commands import compare
from training.evaluation import scoring
from training.evaluation.published import Version
from training.publishing import to_onnx

DIGITS = ROOT / "models/digits/1"
CIFAR10 = ROOT / "models/cifar10/1"


@pytest.fixture
def biased(tmp_path: Path) -> Path:
    """Publish the digits as version 9, with answers biased towards the 1."""
    folder = tmp_path / "digits" / "9"
    shutil.copytree(DIGITS, folder)
    graph = onnx.load(folder / "model.onnx")
    bias = np.eye(10, dtype=np.float32)[[1]]
    graph.graph.initializer.append(onnx.numpy_helper.from_array(bias, "bias"))
    graph.graph.node[-1].output[0] = "honest"
    graph.graph.node.append(onnx.helper.make_node("Add", ["honest", "bias"], ["probabilities"]))
    held = {entry.key: entry.value for entry in graph.metadata_props}
    onnx.helper.set_model_props(graph, {**held, "version": "9"})
    onnx.save(graph, folder / "model.onnx")
    return folder


def test_two_versions_are_shown_side_by_side() -> None:
    lines = compare.table(Version(DIGITS), Version(CIFAR10)).splitlines()
    cells = {line[:30].strip(): line[30:].split("  ") for line in lines}
    cells = {name: [each.strip() for each in row if each.strip()] for name, row in cells.items()}
    assert cells[""] == ["digits 1", "cifar10 1"]
    assert cells["test accuracy"] == ["99.16% of 10,000", "80.95% of 10,000"]
    assert cells["95% confidence"] == ["98.96% to 99.32%", "80.17% to 81.71%"]
    assert cells["calibration error"] == ["0.20%", "1.58%"]
    assert cells["million multiply-accumulates"] == ["3.4", "21.6"]
    assert cells["recipe"] == ["digits_adadelta", "cifar10_sixconv"]
    assert cells["training time"] == ["3 minutes", "30 minutes"]
    assert cells["recall of 7"] == ["99.03%", "–"]
    assert cells["recall of cat"] == ["–", "58.90%"]


def test_results_on_corrupted_images_are_shown_where_a_version_has_them(biased: Path) -> None:
    held = {"accuracy": 0.5, "kinds": {"fog": [0.25, 0.75], "snow": [0.5, 0.5]}}
    to_onnx.add_metadata(biased / "model.onnx", "corrupted", held)
    lines = compare.table(Version(DIGITS), Version(biased)).splitlines()
    shown = [line.split() for line in lines if line.startswith(("corrupted", "with"))]
    assert shown == [
        ["corrupted", "images", "–", "50.00%"],
        ["with", "fog", "–", "50.00%"],
        ["with", "snow", "–", "50.00%"],
    ]


@pytest.mark.parametrize(
    ("one", "other", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 1, 1.0), (0, 5, 0.0625), (5, 0, 0.0625), (2, 10, 0.0386)],
)
def test_the_p_value_is_that_of_the_binomial(one: int, other: int, p: float) -> None:
    assert compare.mcnemar(one, other) == pytest.approx(p, abs=1e-4)


def test_the_p_value_of_many_images_is_a_number() -> None:
    assert 0 < compare.mcnemar(9_000, 10_000) < 1e-12


def test_disagreements_are_counted_on_the_test_split(biased: Path, tmp_path: Path) -> None:
    data_dir = write_tiny_data(tmp_path / "data")
    text = compare.on_data(Version(DIGITS), Version(biased), data_dir=data_dir)
    answers, labels = scoring.on_test(DIGITS / "model.onnx", "mnist", data_dir=data_dir)
    other, _ = scoring.on_test(biased / "model.onnx", "mnist", data_dir=data_dir)
    right, right_too = answers.argmax(axis=1) == labels, other.argmax(axis=1) == labels
    different = np.sum(answers.argmax(axis=1) != other.argmax(axis=1))
    assert different > 50
    assert f"Of 100 test images they label {different} differently." in text
    assert f"digits 1 alone is right on {np.sum(right & ~right_too)}," in text
    assert f"digits 9 alone on {np.sum(~right & right_too)}:" in text


def test_the_command_compares(biased: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = str(ROOT / "models")
    assert main(["compare", "digits", str(biased), "--models", models]) == 0
    assert "digits 9" in capsys.readouterr().out


def test_versions_of_different_data_are_not_compared_on_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = str(ROOT / "models")
    assert main(["compare", "digits/1", "cifar10/1", "--on-data", "--models", models]) == 2
    assert "Expected the same test split" in capsys.readouterr().err


def test_a_missing_version_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "digits", "digits/99", "--models", str(ROOT / "models")]) == 2
    assert "No version 99" in capsys.readouterr().err
