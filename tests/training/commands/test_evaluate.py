import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.tables import ROOT
from tests.tiny_data import write_mnist, write_tiny_data
from training.__main__ import main
from training.data import pixels
from training.data.datasets import Upload, load
from training.evaluation import published, scoring, unfamiliar
from training.evaluation.corruptions import sets
from training.evaluation.scoring import Score


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    write_mnist(tmp_path / "mnist")
    return ["--models", str(ROOT / "models"), "--data-dir", str(tmp_path)]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_corrupted_test_images_are_scored_by_kind(
    precision: str, places: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "digits", "--corrupted", "--limit", "20", "--precision", precision]
    assert main([*command, *places]) == 0
    first, _, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("digits: **")
    assert "15 kinds of corruption, each at 1 severity, on 20 test images (MNIST-C, seed" in first
    names = [row.split(" | ")[0].removeprefix("| ") for row in rows[2:]]
    assert names == ["geometry", "others", *(kind.name for kind in sets.MNIST)]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_all_figures_of_a_card_are_printed(
    precision: str, places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "digits/3", "--full", "--precision", precision, *places]) == 0
    title, _, result, _, *lines = capsys.readouterr().out.splitlines()
    assert title == "# Handwritten digits: `digits` version 3"
    file = published.find("digits/3", ROOT / "models").file_of(precision)
    test = load("mnist", data_dir=tmp_path).test
    correct = scoring.score(scoring.probabilities(file, test.images), test.labels).correct
    assert result.startswith(f"**{correct}.00%** of 100 test images correct ({correct}; 95% conf")
    begins = [line.split(" | ")[0] for line in lines if line.startswith("|")]
    assert begins[2:7] == [
        *("| Cost of an image", "| `model.onnx`", "| `model.int8.onnx`"),
        *("| Calibration error", "| Class"),
    ]
    assert begins[8:18] == [f"| {label}" for label in range(10)]
    assert begins[20:] == ["| 90%", "| 95%", "| 99%"]


def figures(lines: Iterable[str]) -> list[tuple[str, list[float]]]:
    """Return label and numbers of each row about calibration, classes and prediction sets."""
    table, found = "", []
    for line in lines:
        name, *cells = line.strip("|").split(" | ")
        table = "" if not line else table or name.strip()
        if name.strip() == table:
            continue
        if name == " Calibration error" or table.startswith(("Class", "Requested", "Coverage")):
            numbers = re.findall(r"\d[\d,]*(?:\.\d+)?", " ".join(cells))
            found.append((name, [float(each.replace(",", "")) for each in numbers]))
    return [row for row in found if row[1]]


@pytest.mark.real_data
def test_a_card_is_reproduced_by_its_file(
    real_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = published.find("digits", ROOT / "models").folder
    assert main(["evaluate", str(folder), "--full", "--data-dir", str(real_dir)]) == 0
    printed = figures(capsys.readouterr().out.splitlines())
    card = figures((folder / "README.md").read_text("utf-8").splitlines())
    assert [name for name, _ in printed] == [name for name, _ in card]
    assert len(card) == 1 + 10 + 3
    for (_, shown), (_, held) in zip(printed, card, strict=True):
        assert shown == pytest.approx(held, abs=0.1)  # another processor may round another way


def test_a_version_is_named_by_its_folder(
    places: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(ROOT / "models" / "digits" / "3")
    assert main(["evaluate", folder, *places]) == 0
    assert main(["evaluate", "digits/3", *places]) == 0
    by_folder, by_name = capsys.readouterr().out.splitlines()
    assert by_folder.removeprefix(folder) == by_name.removeprefix("digits/3")


def test_a_service_receives_the_corrupted_images_as_files(
    places: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[Upload]] = []

    def over_http(url: str, model: str, uploads: Iterable[Upload], *, version: int | None) -> Score:
        assert (url, model, version) == ("http://here", "digits", 3)
        sent.append(list(uploads))
        return Score(1, 4)

    monkeypatch.setattr(scoring, "over_http", over_http)
    command = ["evaluate", "digits/3", "--corrupted", "--limit", "4", "--url", "http://here"]
    assert main([*command, *places]) == 0
    test = load("mnist", data_dir=tmp_path).test
    stripe = [kind.name for kind in sets.MNIST].index("stripe")
    image = np.asarray(pixels.decode(sent[stripe][3].data))[..., 0]
    np.testing.assert_array_equal(image[:, :7], 255 - test.images[3, :, :7, 0])
    assert [each.label for each in sent[0]] == [str(label) for label in test.labels[:4]]


def test_pictures_of_something_else_are_scored_by_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfamiliar, "COUNT", 8)
    places = ["--models", str(ROOT / "models"), "--data-dir", str(write_tiny_data(tmp_path))]
    assert main(["evaluate", "digits", "--unfamiliar", *places]) == 0
    first, _, _, _, *rows = capsys.readouterr().out.splitlines()
    assert first == "digits: unfamiliar images"
    kinds = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert kinds == ["white noise", "scribbles", "two digits", "pets", "letters", "blank"]


def test_unfamiliar_pictures_are_scored_by_a_file_alone(
    places: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "digits", "--unfamiliar", "--url", "http://here", *places]) == 2
    assert "--unfamiliar scores a file" in capsys.readouterr().err
