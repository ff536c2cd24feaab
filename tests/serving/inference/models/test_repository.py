"""Finding, loading and self-testing the published versions."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from serving.errors import ModelError
from serving.inference.models.repository import Repository, load_version
from serving.inference.models.repository import load as load_all
from serving.settings import Settings
from tests.serving.samples import add_int8, png, publish, sum_up

SLOW = 1  # products, beside none


def load(models: Path, **options: Any) -> Repository:
    return load_all(Settings(models=models, **options))


def test_every_version_is_loaded_and_the_highest_is_the_default(tmp_path: Path) -> None:
    for version in (2, 10, 9):
        publish(tmp_path, version=version)
    repository = load(tmp_path)
    assert [str(model) for model in repository] == ["shade 2", "shade 9", "shade 10"]
    assert repository.get("shade").version == 10
    assert repository.get("shade", 9).version == 9


def test_a_link_to_a_version_is_a_version(tmp_path: Path) -> None:
    published = publish(tmp_path, version=3)
    stored = published.rename(tmp_path / ".stored")
    published.symlink_to(stored)
    assert [str(model) for model in load(tmp_path)] == ["shade 3"]
    (tmp_path.parent / "link").symlink_to(tmp_path)
    assert [str(model) for model in load(tmp_path.parent / "link")] == ["shade 3"]
    shutil.rmtree(stored)
    with pytest.raises(ModelError, match="shade/3"):
        load(tmp_path)


@pytest.mark.parametrize(
    "place",
    ["tint", "shade/3", "shade/1/model.onnx", "shade/1/golden", "shade/1/more", "routing.json"],
)
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "elsewhere" / "secret").mkdir(parents=True)
    publish(tmp_path / "models")
    path = tmp_path / "models" / place
    if path.exists():
        path.rename(tmp_path / "former")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=f"{place} is a link out of") as raised:
        load(tmp_path / "models")
    assert "secret" not in str(raised.value)


def test_hidden_folders_files_and_unpublished_models_are_ignored(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / ".cache" / "1").mkdir(parents=True)
    (tmp_path / "shade" / ".2.partial-x").mkdir()
    (tmp_path / "coming" / ".1.partial-x").mkdir(parents=True)
    assert [str(model) for model in load(tmp_path)] == ["shade 1"]


@pytest.mark.parametrize("name", ["Shade/1", "shade/01", "shade/latest", "shade/0"])
def test_a_misnamed_folder_stops_the_start(tmp_path: Path, name: str) -> None:
    publish(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ModelError, match="is not a valid name"):
        load(tmp_path)


def test_an_empty_folder_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No model is published in"):
        load(tmp_path)


def test_a_missing_folder_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: No such file or directory"):
        load(tmp_path / "none")


def test_a_malformed_routing_stops_the_start(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "routing.json").write_text('{"shade": {"default": 2}}')
    with pytest.raises(ModelError, match=r"names version 2 of 'shade'\. Loaded versions: 1\."):
        load(tmp_path)


def test_every_broken_version_is_reported(tmp_path: Path) -> None:
    publish(tmp_path, golden={"light-1": 10})
    publish(tmp_path, name="tint", golden={"dark-1": 240})
    with pytest.raises(ModelError, match=r"shade 1 predicts 'dark' for .* tint 1 predicts 'light' for"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"golden": {"light-1": 10}}, "for the golden image"),
        ({"golden": {"grey-1": 10}}, "names no label of shade 1. Known: dark, light."),
        ({"golden": {"dark": 10}}, "names no label of shade 1. Known: dark, light."),
    ],
)
def test_a_wrong_golden_image_stops_the_start(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    publish(tmp_path, **options)
    with pytest.raises(ModelError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("precision", "sound"), [("auto", False), ("float32", False), ("int8", True)]
)
def test_each_file_that_may_serve_answers_the_golden_images(
    tmp_path: Path, precision: str, sound: bool
) -> None:
    path = publish(tmp_path, white=5000.0, products=SLOW)  # float32 predicts dark for every image
    add_int8(path)
    settings = Settings(precision=precision)
    if sound:
        assert load_version(path, settings).precision == "int8"
    else:
        with pytest.raises(ModelError, match="for the golden image"):
            load_version(path, settings)


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_the_precision_that_the_workers_agreed_on_serves(tmp_path: Path, precision: str) -> None:
    add_int8(path := publish(tmp_path))
    assert load_version(path, Settings(), agree=lambda _: precision).precision == precision


def test_an_unreadable_golden_image_stops_the_start(tmp_path: Path) -> None:
    (publish(tmp_path) / "golden" / "dark-2.png").write_bytes(b"no image")
    with pytest.raises(ModelError, match=r"dark-2\.png cannot be read"):
        load(tmp_path)


def test_a_golden_image_above_the_limit_of_pixels_stops_the_start(tmp_path: Path) -> None:
    (publish(tmp_path) / "golden" / "dark-1.png").write_bytes(png(10, size=(12, 16)))
    with pytest.raises(ModelError, match=r"dark-1\.png cannot be read: The image has more pixels"):
        load(tmp_path, max_pixels=191)


def test_a_version_without_golden_images_stops_the_start(tmp_path: Path) -> None:
    for image in (publish(tmp_path) / "golden").iterdir():
        image.unlink()
    with pytest.raises(ModelError, match="holds no image"):
        load(tmp_path)


def test_a_version_that_is_what_its_sums_say_is_loaded(tmp_path: Path) -> None:
    path = publish(tmp_path)
    sum_up(path)
    (path / ".DS_Store").touch()
    assert [str(model) for model in load(tmp_path)] == ["shade 1"]


def test_the_format_of_the_sums_is_that_of_sha256sum(tmp_path: Path) -> None:
    path = publish(tmp_path)
    sum_up(path)
    sums = path / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("  ", " *./"))
    assert [str(model) for model in load(tmp_path)] == ["shade 1"]


def tamper(path: Path) -> None:
    with (path / "model.onnx").open("ab") as file:
        file.write(b"\0")


def add(path: Path) -> None:
    (path / "report").mkdir()
    (path / "report" / "more.png").touch()


def lose(path: Path) -> None:
    (path / "golden" / "light-1.png").unlink()


def cut(path: Path) -> None:
    sums = path / "SHA256SUMS"
    sums.write_text(sums.read_text()[:50])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (tamper, r"model\.onnx is not the file that was published"),
        (add, r"report/more\.png is not listed in SHA256SUMS"),
        (lose, r"light-1\.png is missing, but listed in SHA256SUMS"),
        (cut, r"SHA256SUMS has the line .* Expected '<64 hex digits>  <file>'"),
    ],
)
def test_a_version_that_is_not_what_its_sums_say_stops_the_start(
    tmp_path: Path, change: Any, message: str
) -> None:
    path = publish(tmp_path)
    sum_up(path)
    change(path)
    with pytest.raises(ModelError, match=message):
        load(tmp_path)
