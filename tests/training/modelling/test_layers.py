import numpy as np
import pytest

from training.modelling.layers import standardized


def test_neither_brightness_nor_contrast_matters() -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, 28, 28, 3)).astype(np.float32)
    darker = 0.5 * image + 20
    np.testing.assert_allclose(standardized(image), standardized(darker), atol=0.03)
    assert np.asarray(standardized(image)).std() == pytest.approx(1, abs=0.01)


def test_an_even_image_is_zero_and_weak_noise_stays_weak() -> None:
    even = np.full((2, 28, 28, 1), 200, np.uint8)
    np.testing.assert_array_equal(standardized(even), np.zeros_like(even, np.float32))
    noisy = even + np.random.default_rng(1).integers(0, 2, even.shape, np.uint8)
    assert np.abs(standardized(noisy)).max() < 0.2
