"""Finding, loading and self-testing what is published."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from serving.errors import ModelError
from serving.repository import load
from serving.versions import link, scan
from tests.serving.samples import publish


def test_every_version_is_loaded_and_the_highest_is_the_default(tmp_path: Path) -> None:
    for version in (2, 10, 9):
        publish(tmp_path, version=version)
    repository = load(tmp_path)
    assert [str(model) for model in repository] == ["shade 2", "shade 9", "shade 10"]
    assert repository.get("shade").version == 10
    assert repository.get("shade", 9).version == 9


def test_links_to_versions_are_versions(tmp_path: Path) -> None:
    published = publish(tmp_path / "all", version=3)
    publish(tmp_path / "all", version=4)
    links = link([published], tmp_path / "links")
    assert [str(model) for model in load(links)] == ["shade 3"]


def test_a_link_to_a_version_that_is_gone_is_broken(tmp_path: Path) -> None:
    published = publish(tmp_path / "all")
    links = link([published], tmp_path / "links")
    shutil.rmtree(published)
    with pytest.raises(ModelError, match=str(published)):
        load(links)


def test_hidden_folders_files_and_unpublished_models_do_not_exist(tmp_path: Path) -> None:
    path = publish(tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / ".cache" / "1").mkdir(parents=True)
    (tmp_path / "shade" / ".2.partial-x").mkdir()
    (tmp_path / "coming" / ".1.partial-x").mkdir(parents=True)
    assert scan(tmp_path) == [path]


@pytest.mark.parametrize("name", ["Shade/1", "shade/01", "shade/latest", "shade/0"])
def test_a_name_against_the_contract_stops_the_start(tmp_path: Path, name: str) -> None:
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"golden": {"light-1": 10}}, "takes the golden image"),
        ({"golden": {"grey-1": 10}}, "names no label of shade 1. Known: dark, light."),
        ({"golden": {"dark": 10}}, "names no label of shade 1. Known: dark, light."),
    ],
)
def test_a_golden_image_that_is_missed_stops_the_start(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    publish(tmp_path, **options)
    with pytest.raises(ModelError, match=message):
        load(tmp_path)


def test_an_unreadable_golden_image_stops_the_start(tmp_path: Path) -> None:
    (publish(tmp_path) / "golden" / "dark-2.png").write_bytes(b"no image")
    with pytest.raises(ModelError, match=r"dark-2\.png cannot be read"):
        load(tmp_path)


def test_a_version_without_golden_images_stops_the_start(tmp_path: Path) -> None:
    for image in (publish(tmp_path) / "golden").iterdir():
        image.unlink()
    with pytest.raises(ModelError, match="holds no image"):
        load(tmp_path)
