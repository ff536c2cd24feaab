"""The geometry of MNIST-C: shear, scale, rotation and translation about the middle, black outside.

Images are float32 ``(N, H, W, C)``, 0-1. Digits are trained with such geometry, so these kinds have
a mean of their own.
"""

import numpy as np
from numpy.typing import NDArray

from training.evaluation.corruptions import filters
from training.evaluation.corruptions.draws import Draws, Floats


def shear(x: Floats, draws: Draws, angle: float) -> Floats:
    """Shear by an angle in radians, in either direction."""
    angles = angle * draws.signs()
    one = np.ones_like(angles, dtype=float)
    return _mapped(x, one, -np.sin(angles), 0 * one, np.cos(angles))


def scale(x: Floats, draws: Draws, factor: float) -> Floats:
    """Scale both axes by a factor; below 1 the digit becomes smaller."""
    one = np.ones_like(draws.signs(), dtype=float)
    return _mapped(x, one / factor, 0 * one, 0 * one, one / factor)


def rotate(x: Floats, draws: Draws, angle: float) -> Floats:
    """Rotate by an angle in radians, in either direction."""
    angles = angle * draws.signs()
    return _mapped(x, np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles))


def translate(x: Floats, draws: Draws, pixels: float) -> Floats:
    """Shift by a number of pixels along both axes, each in either direction."""
    right, down = (pixels * draws.signs(2)).T[:, :, None, None]
    rows, columns = np.mgrid[: x.shape[1], : x.shape[2]].astype(float)
    return filters.sample(x, rows + down, columns + right, "zero")


def _mapped(x: Floats, *matrix: NDArray[np.float64]) -> Floats:
    """Read output (x, y) from input (a x + b y, c x + d y), both from the middle; each ``(N,)``."""
    a, b, c, d = (np.asarray(each, dtype=float)[:, None, None] for each in matrix)
    height, width = x.shape[1:3]
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    down, right = np.mgrid[:height, :width].astype(float)
    down, right = down - middle_y, right - middle_x
    rows, columns = c * right + d * down + middle_y, a * right + b * down + middle_x
    return filters.sample(x, rows, columns, "zero")
