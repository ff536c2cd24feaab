import keras
import numpy as np

from training.augment import RandomResizedCrop


def ramp() -> np.ndarray:
    """Pictures whose colours tell the place: red the column, green the row."""
    y, x = np.mgrid[0:32, 0:32].astype(np.float32)
    return np.repeat(np.stack([x, y, x], axis=-1)[None], 64, axis=0)


def crop(seed: int = 1) -> np.ndarray:
    layer = RandomResizedCrop(area=(0.25, 1.0), seed=seed)
    return np.asarray(layer(ramp(), training=True))


def test_without_training_the_images_pass_unchanged() -> None:
    layer = RandomResizedCrop(seed=1)
    np.testing.assert_array_equal(np.asarray(layer(ramp())), ramp())


def test_a_crop_lies_within_the_image() -> None:
    pixels = crop()
    assert pixels.shape == ramp().shape
    assert pixels.min() >= 0
    assert pixels.max() <= 31
    # no reflection: brightness rises from left to right in every crop
    assert (np.diff(pixels[..., 0], axis=2) >= -1e-3).all()


def test_crops_cover_the_share_asked_for_and_differ() -> None:
    pixels = crop()
    width = (pixels[:, 0, -1, 0] - pixels[:, 0, 0, 0]) / 31
    height = (pixels[:, -1, 0, 1] - pixels[:, 0, 0, 1]) / 31
    area = width * height
    assert area.min() > 0.2
    assert area.max() <= 1.0
    assert len(np.unique(area.round(3))) > 32


def test_one_seed_gives_the_same_crops() -> None:
    np.testing.assert_array_equal(crop(seed=3), crop(seed=3))
    assert not np.array_equal(crop(seed=3), crop(seed=4))


def test_the_layer_survives_a_configuration_round_trip() -> None:
    layer = RandomResizedCrop(area=(0.5, 0.9), seed=1)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.area == (0.5, 0.9)
