import keras
import numpy as np

from training.modelling.initializers import Dirac, whitening


def convolve(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.conv(images, kernel, padding="valid"))


def test_identity_filters_preserve_the_input_and_the_rest_are_random() -> None:
    keras.utils.set_random_seed(1)
    kernel = np.asarray(Dirac()((3, 3, 4, 6)))
    images = np.random.default_rng(1).normal(size=(2, 5, 5, 4)).astype(np.float32)
    answer = convolve(images, kernel)
    np.testing.assert_allclose(answer[..., :4], images[:, 1:-1, 1:-1], rtol=1e-6)
    assert 0.05 < kernel[..., 4:].std() < 0.3


def test_with_fewer_filters_than_channels_all_are_identities() -> None:
    kernel = np.asarray(Dirac()((3, 3, 4, 2)))
    assert kernel.shape == (3, 3, 4, 2)
    assert kernel.sum() == 2


def test_whitened_patches_are_uncorrelated_and_of_variance_one() -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(64, 12, 12, 3)).astype(np.float32)
    images = images + np.roll(images, 1, axis=2) + images.mean(axis=3, keepdims=True)
    kernel = whitening(images, 2)
    assert kernel.shape == (2, 2, 3, 24)
    answers = convolve(images, kernel).reshape(-1, 24)
    spread = answers[:, :12].T @ answers[:, :12] / len(answers)
    np.testing.assert_allclose(spread, np.eye(12), atol=0.02)
    np.testing.assert_allclose(answers[:, 12:], -answers[:, :12], atol=1e-5)


def test_flat_images_whiten_to_finite_filters() -> None:
    assert np.isfinite(whitening(np.ones((4, 8, 8, 3), np.float32), 2)).all()
