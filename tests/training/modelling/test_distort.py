import keras
import numpy as np
import pytest

from training.modelling.augment import Augmentation
from training.modelling.distort import (
    Negative,
    Posterize,
    RandomFilter,
    RandomTone,
    Solarize,
    StructuredNoise,
)

LAYERS = [
    RandomFilter(seed=1),
    StructuredNoise(60, seed=1),
    RandomTone(seed=1),
    Solarize(seed=1),
    Negative(seed=1),
    Posterize(seed=1),
]
each_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)


def images(count: int = 64) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 16, 16, 3)).astype(np.float32)


def changed(layer: Augmentation, of: np.ndarray) -> np.ndarray:
    layer.seed_generator.state.assign(np.array([1, 2], "uint32"))
    return np.asarray(layer(of, training=True))


@each_layer
def test_a_distortion_changes_images_in_training_alone(layer: Augmentation) -> None:
    np.testing.assert_array_equal(np.asarray(layer(images())), images())
    pixels = changed(layer, images())
    assert pixels.shape == images().shape
    assert np.isfinite(pixels).all()
    assert (pixels != images()).any(axis=(1, 2, 3)).mean() > 0.9


@each_layer
def test_a_distortion_follows_its_seed(layer: Augmentation) -> None:
    np.testing.assert_array_equal(changed(layer, images()), changed(layer, images()))
    assert not np.array_equal(changed(layer, images()), np.asarray(layer(images(), training=True)))


def test_a_filter_leaves_an_even_image_as_it_is() -> None:
    even = np.full((8, 16, 16, 3), 77, np.float32)
    np.testing.assert_allclose(changed(RandomFilter(1.0, seed=1), even), even, atol=1e-3)


def test_structured_noise_is_bounded_and_never_independent_from_pixel_to_pixel() -> None:
    noise = changed(StructuredNoise(60, seed=1), np.zeros((256, 16, 16, 1), np.float32))[..., 0]
    assert np.abs(noise).max() <= 60
    assert np.abs(noise).max() > 30

    def roughness(axis: int) -> np.ndarray:
        """Return the mean squared step along an axis over twice the variance: 1 if independent."""
        steps = np.square(np.diff(noise, axis=axis)).mean(axis=(1, 2))
        return np.asarray(steps / (2 * noise.var(axis=(1, 2))))

    assert (np.minimum(roughness(1), roughness(2)) < 0.6).all()


def test_a_tone_curve_keeps_black_white_and_the_order_of_grey() -> None:
    ramp = np.linspace(0, 255, 16, dtype=np.float32)[None, None, :, None].repeat(32, 0)
    curved = changed(RandomTone(seed=1), ramp)
    assert np.abs(curved[:, 0, 0]).max() < 10
    np.testing.assert_allclose(curved[:, 0, -1], 255, atol=1e-3)
    assert (np.diff(curved, axis=2) >= 0).all()


def test_solarizing_inverts_what_is_above_the_threshold() -> None:
    pixels, before = changed(Solarize(seed=1), images()), images()
    assert np.isin(pixels, np.stack([before, 255 - before])).all()
    for one, old in zip(pixels, before, strict=True):
        inverted = one != old
        assert old[inverted].min(initial=256) > old[~inverted].max(initial=-1)


def test_negative_blotches_are_neighbouring_pixels() -> None:
    black = np.zeros((64, 32, 32, 1), np.float32)
    pixels = changed(Negative(seed=1), black)
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert np.abs(np.diff(pixels, axis=1)).mean() < 0.25 * pixels.std()


def test_posterizing_leaves_2_to_16_levels() -> None:
    ramp = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1).repeat(64, 0)
    levels = [len(np.unique(one)) for one in changed(Posterize(seed=1), ramp)]
    assert min(levels) <= 3
    assert max(levels) <= 17


def test_distortions_run_in_a_compiled_model() -> None:
    image = keras.Input((16, 16, 3))
    x = image
    for layer in LAYERS:
        x = layer(x, training=True)
    assert keras.Model(image, x).predict(images(4), verbose=0).shape == (4, 16, 16, 3)
