import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from PIL import Image

from tests.training import tiny
from training.errors import BelowGate
from training.fit import fit
from training.publish import publish


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    fit(tiny.RECIPE, tiny.dataset(), run=folder, precision="float32", verbose=0)
    return folder


@pytest.fixture(scope="module")
def published(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    return publish(tiny.RECIPE, tiny.dataset(), run=run, models=models, command="a command")


def properties(folder: Path) -> dict[str, str]:
    model = onnx.load(folder / "model.onnx")
    return {entry.key: entry.value for entry in model.metadata_props}


def test_the_metadata_tell_what_serving_needs(published: Path) -> None:
    held = properties(published)
    assert (held["schema"], held["name"], held["version"]) == ("1", "brightness", "1")
    assert (json.loads(held["labels"]), held["fit"]) == (["dark", "light"], "stretch")


def test_the_metadata_tell_how_the_file_was_made_and_judged(published: Path) -> None:
    held = properties(published)
    metrics = json.loads(held["metrics"])
    assert metrics["images"] == 300
    assert metrics["accuracy"] == round(metrics["correct"] / 300, 6) >= 0.9
    assert json.loads(held["dataset"])["split"] == {"train": 130, "validation": 64, "test": 300}
    assert json.loads(held["source"])["command"] == "a command"
    assert sum(json.loads(held["baseline"])["classes"].values()) == pytest.approx(1)


def test_the_golden_images_are_test_images_named_by_label(published: Path) -> None:
    names = sorted(path.name for path in (published / "golden").iterdir())
    assert names == [f"{'dark' if n % 2 == 0 else 'light'}-{n}.png" for n in (0, 2, 4, 6, 8)] + [
        f"light-{n}.png" for n in (1, 3, 5, 7, 9)
    ]
    with Image.open(published / "golden" / "dark-0.png") as picture:
        assert picture.size == (8, 8)


def test_the_card_has_the_figures_and_all_its_pictures(published: Path) -> None:
    card = (published / "README.md").read_text()
    assert "`brightness` version 1" in card
    assert "a command" in card
    pictures = {path.name for path in (published / "report").iterdir()}
    assert len(pictures) == 4
    assert all(f"report/{name}" in card for name in pictures)


def test_a_second_publication_is_the_next_version(run: Path, tmp_path: Path) -> None:
    folders = [
        publish(tiny.RECIPE, tiny.dataset(), run=run, models=tmp_path, command="") for _ in range(2)
    ]
    assert [folder.name for folder in folders] == ["1", "2"]
    assert properties(folders[1])["version"] == "2"


def test_a_run_below_its_gate_publishes_nothing(run: Path, tmp_path: Path) -> None:
    strict = replace(tiny.RECIPE, min_accuracy=1.01)
    with pytest.raises(BelowGate, match=r"below its min_accuracy of 101.00%") as raised:
        publish(strict, tiny.dataset(), run=run, models=tmp_path, command="")
    assert raised.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []
