from pathlib import Path

import numpy as np
import pytest

from tests.tiny_data import write_tiny_data
from training.data import outliers
from training.data.datasets import Dataset, load
from training.evaluation import unfamiliar


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_data(tmp_path_factory.mktemp("data"))


def data_of(name: str, data_dir: Path) -> Dataset:
    return load(name, data_dir=data_dir, size=(24, 24) if name == "cats_vs_dogs" else None)


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [
        (name, kind)
        for name in ("mnist", "cifar10", "cats_vs_dogs")
        for kind in unfamiliar.kinds(name)
    ],
)
def test_unfamiliar_images_have_the_form_of_the_set_and_follow_the_seed(
    data_dir: Path, dataset: str, kind: str
) -> None:
    data = data_of(dataset, data_dir)
    make = unfamiliar.kinds(dataset)[kind]
    first, again = (make(data, 20, np.random.default_rng(1), data_dir) for _ in range(2))
    assert first.shape[1:] == data.test.images.shape[1:]
    assert first.dtype == np.uint8
    assert len(first) == (256 if kind == "blank" else 20)
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first.reshape(len(first), -1), axis=0)) > 10


@pytest.mark.parametrize(
    ("ordinary", "other", "area"),
    [
        ([0.5, 0.9], [0.1, 0.2], 1.0),
        ([0.1, 0.2], [0.5, 0.9], 0.0),
        ([0.3, 0.7], [0.3, 0.7], 0.5),
        ([0.2, 0.6, 0.8], [0.4], 2 / 3),
    ],
)
def test_the_area_under_the_curve_counts_pairs(
    ordinary: list[float], other: list[float], area: float
) -> None:
    found = unfamiliar.auroc(np.array(ordinary, np.float32), np.array(other, np.float32))
    assert found == pytest.approx(area)


def test_no_scored_kind_is_one_that_training_makes() -> None:
    for dataset in ("mnist", "cifar10", "cats_vs_dogs"):
        for kind, make in unfamiliar.kinds(dataset).items():
            assert make not in outliers.KINDS.values(), kind


def test_a_blank_page_has_every_level(data_dir: Path) -> None:
    images = unfamiliar.blank(data_of("mnist", data_dir), 0, np.random.default_rng(1), data_dir)
    assert (images.min(axis=(1, 2, 3)) == np.arange(256)).all()
    assert (images.max(axis=(1, 2, 3)) == np.arange(256)).all()


def test_a_scribble_is_white_on_black_where_images_are_grey(data_dir: Path) -> None:
    images = unfamiliar.scribbles(
        data_of("mnist", data_dir), 20, np.random.default_rng(1), data_dir
    )
    ink = (images > 127).mean(axis=(1, 2, 3))
    assert ink.min() > 0.02
    assert ink.max() < 0.6
    assert (images[:, 0] == 0).all()


def test_another_data_set_has_no_kinds() -> None:
    assert not unfamiliar.kinds("brightness")
