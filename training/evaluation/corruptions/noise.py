"""Noise of a sensor: Gaussian, shot and impulse.

Images are float32 ``(N, H, W, C)``, 0-1.
"""

import numpy as np

from training.evaluation.corruptions.draws import Draws, Floats


def gaussian_noise(x: Floats, draws: Draws, sigma: float) -> Floats:
    """Add normal noise to every value."""
    return x + np.float32(sigma) * draws.normal(*x.shape[1:])


def shot_noise(x: Floats, draws: Draws, photons: float) -> Floats:
    """Count photons, of which white has ``photons`` on average."""
    return draws.poisson(x * np.float32(photons)) / np.float32(photons)


def impulse_noise(x: Floats, draws: Draws, share: float) -> Floats:
    """Replace a share of the values by 0 or 1, as often the one as the other."""
    hit, salt = draws.uniform(*x.shape[1:]) < share, draws.uniform(*x.shape[1:]) < 0.5
    return np.where(hit, salt, x).astype(np.float32)
