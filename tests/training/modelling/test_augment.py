import keras
import numpy as np
import pytest

from training.modelling.augment import (
    AlternatingFlip,
    Cutout,
    RandomAffine,
    RandomResizedCrop,
    RandomShift,
)


def ramp() -> np.ndarray:
    """Return images whose colours are the place: red the column, green the row."""
    y, x = np.mgrid[0:32, 0:32].astype(np.float32)
    return np.repeat(np.stack([x, y, x], axis=-1)[None], 64, axis=0)


def crop(seed: int = 1) -> np.ndarray:
    layer = RandomResizedCrop(area=(0.25, 1.0), seed=seed)
    return np.asarray(layer(ramp(), training=True))


def test_images_are_unchanged_outside_training() -> None:
    layer = RandomResizedCrop(seed=1)
    np.testing.assert_array_equal(np.asarray(layer(ramp())), ramp())


def test_a_crop_lies_within_the_image() -> None:
    pixels = crop()
    assert pixels.shape == ramp().shape
    assert pixels.min() >= 0
    assert pixels.max() <= 31
    # no reflection: brightness rises from left to right in every crop
    assert (np.diff(pixels[..., 0], axis=2) >= -1e-3).all()


def test_crops_cover_the_requested_share_and_differ() -> None:
    pixels = crop()
    width = (pixels[:, 0, -1, 0] - pixels[:, 0, 0, 0]) / 31
    height = (pixels[:, -1, 0, 1] - pixels[:, 0, 0, 1]) / 31
    area = width * height
    assert area.min() > 0.2
    assert area.max() <= 1.0
    assert len(np.unique(area.round(3))) > 32


def test_crops_are_deterministic() -> None:
    np.testing.assert_array_equal(crop(seed=3), crop(seed=3))
    assert not np.array_equal(crop(seed=3), crop(seed=4))


def test_a_crop_may_have_another_size_in_training() -> None:
    layer = RandomResizedCrop(20, seed=1)
    assert layer(ramp(), training=True).shape == (64, 20, 20, 3)
    assert layer(ramp()).shape == ramp().shape


def test_a_shift_moves_by_whole_pixels_and_reflects_the_edge() -> None:
    pixels = np.asarray(RandomShift(2, seed=1)(ramp(), training=True))
    columns = pixels[:, 0, :, 0]
    expected = {
        shift: np.abs(31 - np.abs(31 - np.abs(np.arange(32) + shift))) for shift in range(-2, 3)
    }
    found = {
        shift for row in columns for shift, want in expected.items() if np.array_equal(row, want)
    }
    assert found == set(expected)
    assert all(any(np.array_equal(row, want) for want in expected.values()) for row in columns)


def test_two_epochs_show_both_sides_of_every_image() -> None:
    images = np.random.default_rng(1).integers(0, 256, (64, 8, 8, 3)).astype(np.float32)
    layer = AlternatingFlip()
    first = np.asarray(layer(images, training=True))
    layer.epoch.assign(1)
    second = np.asarray(layer(images, training=True))
    mirrored = (first != images).any(axis=(1, 2, 3))
    assert 10 < mirrored.sum() < 54
    np.testing.assert_array_equal(second, first[:, :, ::-1])


def test_an_affine_layer_without_limits_changes_nothing() -> None:
    layer = RandomAffine(degrees=0, shear=0, scale=0, shift=0)
    np.testing.assert_allclose(np.asarray(layer(ramp(), training=True)), ramp(), atol=1e-3)


@pytest.mark.parametrize(
    "limit", [{"degrees": 20.0}, {"scale": 0.2}, {"shear": 0.3}, {"shift": 3.0}], ids=str
)
def test_an_affine_layer_moves_all_but_the_middle_unless_it_shifts(
    limit: dict[str, float],
) -> None:
    images = np.zeros((64, 33, 33, 1), np.float32)
    images[:, 16, 16] = images[:, 8, 28] = 255
    limits = {"degrees": 0.0, "shear": 0.0, "scale": 0.0, "shift": 0.0} | limit
    layer = RandomAffine(**limits, border="constant", seed=1)
    pixels = np.asarray(layer(images, training=True))[..., 0]
    assert (pixels[:, 8, 28] < 200).any()
    assert (pixels[:, 16, 16] < 200).any() == ("shift" in limit)


def test_the_border_of_an_affine_layer_is_black_or_reflected() -> None:
    white = np.full((16, 9, 9, 1), 255, np.float32)
    limits = {"degrees": 45.0, "shear": 0.0, "scale": 0.0, "shift": 0.0}
    assert (
        np.asarray(RandomAffine(**limits, border="constant", seed=1)(white, training=True)).min()
        == 0
    )
    reflected = RandomAffine(**limits, border="reflect", seed=1)(white, training=True)
    np.testing.assert_allclose(np.asarray(reflected), white, atol=1e-3)


def test_an_area_above_one_shows_the_whole_image_on_a_grey_page() -> None:
    red = np.zeros((64, 16, 16, 3), np.float32)
    red[..., 0] = 255
    layer = RandomResizedCrop(area=(4.0, 4.0), ratio=(1.0, 1.0), seed=1)
    pixels = np.asarray(layer(red, training=True))
    shown = (pixels[..., 0] == 255) & (pixels[..., 1] == 0)
    assert shown.mean(axis=(1, 2)) == pytest.approx(0.25, abs=0.06)
    page = np.where(shown[..., None], np.nan, pixels)
    greys = np.nanmedian(page, axis=(1, 2))
    np.testing.assert_allclose(greys, greys[:, :1].repeat(3, axis=1), atol=1e-3)
    assert len(np.unique(greys.round())) > 20


def test_a_share_of_the_images_is_changed_and_the_others_are_not() -> None:
    images = np.zeros((400, 8, 8, 1), np.float32)
    pixels = np.asarray(Cutout(4, share=0.25, seed=1)(images, training=True))
    changed = (pixels != images).any(axis=(1, 2, 3))
    assert 60 < changed.sum() < 140


def test_a_cutout_greys_one_square_that_lies_within_the_image() -> None:
    pixels = np.asarray(Cutout(8, seed=1)(np.zeros((64, 32, 32, 3)), training=True))
    assert set(np.unique(pixels)) == {0, 128}
    grey = pixels[..., 0] == 128
    assert (grey.sum(axis=(1, 2)) == 64).all()
    assert (grey.any(axis=1).sum(axis=1) == 8).all()
    assert len(np.unique(grey.argmax(axis=1).max(axis=1))) > 8


@pytest.mark.parametrize(
    "layer",
    [
        Cutout(8),
        RandomShift(2),
        AlternatingFlip(),
        RandomAffine(degrees=9, shear=0.1, scale=0.1, shift=2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_does_nothing_outside_training(layer: keras.layers.Layer) -> None:
    np.testing.assert_array_equal(np.asarray(layer(ramp())), ramp())
