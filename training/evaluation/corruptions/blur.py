"""Blur: defocus, frosted glass, motion and zoom.

Images are float32 ``(N, H, W, C)``, 0-1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from training.evaluation.corruptions import filters
from training.evaluation.corruptions.draws import Draws, Floats

NEGLIGIBLE = 1e-5  # the weight of a tap of the motion kernel that changes no 8-bit value


def defocus_blur(x: Floats, _draws: Draws, radius: float, alias: float) -> Floats:
    """Spread every pixel over a disk."""
    return filters.correlate(x, filters.disk(radius, alias))


def glass_blur(x: Floats, draws: Draws, sigma: float, reach: float, rounds: float) -> Floats:
    """Blur, displace pixels by up to ``reach``, and blur again."""
    soft = np.floor(filters.gaussian(x, sigma) * 255) / 255
    return filters.gaussian(
        _displaced(soft.astype(np.float32), draws, int(reach), int(rounds)), sigma
    )


def motion_blur(x: Floats, draws: Draws, radius: float, sigma: float) -> Floats:
    """Smear along a direction within 45° of the horizontal."""
    return streak(x, radius, sigma, draws.between(-45, 45))


def zoom_blur(x: Floats, _draws: Draws, end: float, step: float) -> Floats:
    """Average the image with itself enlarged by the factors from 1 up to ``end``, exclusive."""
    factors, out = np.arange(1, end, step), x.copy()
    for factor in factors:
        out += filters.zoomed(x, float(factor))
    return out / np.float32(len(factors) + 1)


def streak(x: Floats, radius: float, sigma: float, degrees: Floats) -> Floats:
    """Smear each image ``(N, …)`` in its direction, by ImageMagick's kernel: half a Gaussian of
    ``2 · radius + 1`` pixels, read at the nearest pixels, with the border repeated."""
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    steps, weights = steps[weights >= NEGLIGIBLE], weights[weights >= NEGLIGIBLE].astype(np.float32)
    angles = np.radians(degrees.astype(np.float64))[:, None]
    right = np.ceil(steps * np.cos(angles) - 0.5).astype(int)
    down = np.ceil(steps * np.sin(angles) - 0.5).astype(int)
    height, width = x.shape[1:3]
    margin = int(steps[-1])
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), "edge")
    out = np.zeros_like(x)
    for image, source, rows, columns in zip(
        out, padded, down + margin, right + margin, strict=True
    ):
        for weight, top, left in zip(weights, rows, columns, strict=True):
            image += weight * source[top : top + height, left : left + width]
    return out


def _displaced(x: Floats, draws: Draws, reach: int, rounds: int) -> Floats:
    """Walk over the pixels from the lower right, and copy to each one that is near.

    Of a grey image, half of the pixels change places with theirs. That is what the published
    programs do: on a colour image the exchange that they mean is a copy, because the right side of
    their assignment is a view.
    """
    count, height, width, channels = x.shape
    near = range(height - reach, reach, -1), range(width - reach, reach, -1)
    shape = rounds, len(near[0]), len(near[1])
    grey = channels == 1
    moved = draws.integers(0, 2, *shape) if grey else np.ones((count, *shape), np.int8)
    offsets = draws.integers(-reach, reach, *shape, 2).astype(np.int64) * moved[..., None]
    steps = (offsets[..., 0] * width + offsets[..., 1]).transpose(1, 2, 3, 0)
    source = np.repeat(np.arange(height * width)[:, None], count, axis=1)  # of each pixel
    images = np.arange(count)
    for turn in steps:
        for row, line in zip(near[0], turn, strict=True):
            for column, step in zip(near[1], line, strict=True):
                _take(source, row * width + column, step, images, exchange=grey)
    flat = np.take_along_axis(x.reshape(count, -1, channels), source.T[..., None], axis=1)
    return flat.reshape(x.shape)


def _take(
    source: NDArray[np.int64],
    place: int,
    step: NDArray[np.int64],
    images: NDArray[np.int64],
    *,
    exchange: bool,
) -> None:
    other = place + step
    found = source[other, images]
    if exchange:
        source[other, images] = source[place]
    source[place] = found
