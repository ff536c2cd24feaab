from pathlib import Path

import numpy as np
import pytest

from tests.tiny_data import write_cifar10, write_mnist
from training import recipes
from training.data import outliers
from training.data.datasets import Dataset, load
from training.errors import DataError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_mnist(folder / "mnist")
    write_cifar10(folder / "cifar-10-batches-bin")
    return folder


def made(data_dir: Path, name: str, kind: str, seed: int = 1) -> tuple[Dataset, np.ndarray]:
    data = load(name, data_dir=data_dir)
    with_outliers = outliers.add(data, (kind,), share=0.2, seed=seed, data_dir=data_dir)
    assert with_outliers.outliers is not None
    np.testing.assert_array_equal(with_outliers.train.images, data.train.images)
    return data, with_outliers.outliers


@pytest.mark.parametrize("kind", outliers.KINDS)
def test_outliers_are_images_like_those_of_the_set_and_follow_the_seed(
    data_dir: Path, kind: str
) -> None:
    name = "mnist" if kind in ("letters", "photographs") else "cifar10"
    data, images = made(data_dir, name, kind)
    assert images.shape == (round(0.2 * len(data.train.labels)), *data.train.images.shape[1:])
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, made(data_dir, name, kind)[1])
    assert not np.array_equal(images, made(data_dir, name, kind, seed=2)[1])


def test_every_kind_has_an_equal_part_of_the_share(data_dir: Path) -> None:
    data = load("mnist", data_dir=data_dir)
    kinds = ("blank", "letters")
    added = outliers.add(data, kinds, share=0.1, seed=1, data_dir=data_dir).outliers
    assert added is not None
    half = round(0.05 * len(data.train.labels))
    assert len(added) == 2 * half
    assert (added[:half] == added[:half, :1, :1]).all()
    assert (added[half:].max(axis=(1, 2, 3)) > 200).all()


def test_without_kinds_nothing_is_added(data_dir: Path) -> None:
    data = load("mnist", data_dir=data_dir)
    assert outliers.add(data, (), share=0.1, seed=1, data_dir=data_dir) is data


def test_a_letter_fills_the_frame_of_a_digit(data_dir: Path) -> None:
    _, images = made(data_dir, "mnist", "letters")
    for image in images[..., 0].astype(float):
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
        middle = np.average(np.indices(image.shape), axis=(1, 2), weights=np.stack([image] * 2))
        np.testing.assert_allclose(middle, 13.75, atol=1.3)


def test_shuffled_patches_keep_every_pixel_and_move_most(data_dir: Path) -> None:
    data, images = made(data_dir, "cifar10", "shuffled_patches")
    originals = {np.sort(image, axis=None).tobytes() for image in data.train.images}
    assert all(np.sort(image, axis=None).tobytes() in originals for image in images)
    unmoved = {image.tobytes() for image in data.train.images}
    assert not any(image.tobytes() in unmoved for image in images)


def test_what_is_trained_on_is_never_what_is_scored() -> None:
    assert not set(outliers.FOREIGN) & set(outliers.SCORED_FOREIGN)
    families = {font.removesuffix("-Bold") for font in outliers.FONTS}
    assert not any(scored.startswith(tuple(families)) for scored in outliers.SCORED_FONTS)


def test_foreign_images_are_of_the_trained_classes_alone(data_dir: Path) -> None:
    cifar10 = load("cifar10", data_dir=data_dir)
    _, images = made(data_dir, "cifar10", "foreign")
    labels = dict(
        zip((x.tobytes() for x in cifar10.train.images), cifar10.train.labels, strict=True)
    )
    found = {cifar10.labels[labels[image.tobytes()]] for image in images}
    assert found <= set(outliers.FOREIGN)
    assert len(found) > 1


def test_a_damaged_set_of_photographs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-bin").mkdir()
    write_mnist(tmp_path / "mnist")
    data = load("mnist", data_dir=tmp_path)
    with pytest.raises(DataError, match="cifar-10-batches-bin"):
        outliers.add(data, ("photographs",), share=0.1, seed=1, data_dir=tmp_path)


def test_the_outliers_of_every_recipe_are_known() -> None:
    for name in recipes.names():
        assert set(recipes.find(name).outliers) <= set(outliers.KINDS)
