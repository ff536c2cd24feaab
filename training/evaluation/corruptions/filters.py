"""Linear filters and interpolation over batches of images, float32 ``(N, H, W, C)``.

Knows NumPy only. A separable filter is a matrix for the rows and one for the columns, borders
included, so that a batch is two matrix products per image.
"""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.evaluation.corruptions.draws import Floats

Border = Literal["edge", "reflect", "mirror", "zero"]  # aa|ab  ba|ab  ..cb|abc  00|ab


def separable(x: Floats, rows: Floats, columns: Floats) -> Floats:
    """Apply matrices ``(h, H)`` and ``(w, W)``: ``(N, H, W, C)`` to ``(N, h, w, C)``."""
    planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return np.ascontiguousarray((rows @ planes @ columns.T).transpose(0, 2, 3, 1))


def gaussian(x: Floats, sigma: float, *, border: Border = "edge", truncate: float = 4.0) -> Floats:
    """Blur with a Gaussian that ends at ``truncate`` standard deviations."""
    height, width = x.shape[1:3]
    return separable(
        x,
        gaussian_matrix(height, sigma, border, truncate),
        gaussian_matrix(width, sigma, border, truncate),
    )


def gaussian_matrix(side: int, sigma: float, border: Border, truncate: float) -> Floats:
    """Return the blur of a line of ``side`` pixels as a matrix; "zero" ignores what is outside."""
    reach = int(truncate * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2) if reach else np.ones(1)
    matrix = np.zeros((side, side))
    for step, weight in zip(steps, weights, strict=True):
        index = np.arange(side) + step
        inside = (index >= 0) & (index < side) if border == "zero" else np.ones(side, bool)
        np.add.at(matrix, (np.arange(side)[inside], fold(index, side, border)[inside]), weight)
    weighed: Floats = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return weighed


def correlate(x: Floats, kernel: Floats) -> Floats:
    """Correlate with a small square kernel ``(2r + 1, 2r + 1)``; the border is a mirror."""
    height, width = x.shape[1:3]
    reach = len(kernel) // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "reflect")
    out = np.zeros_like(x)
    for (dy, dx), weight in np.ndenumerate(kernel):
        if weight:
            out += weight * padded[:, dy : dy + height, dx : dx + width]
    return out


def disk(radius: float, alias: float) -> Floats:
    """Return a disk as a kernel, its edge softened by a Gaussian of 3×3."""
    reach = math.ceil(radius) + 2  # a margin for the softening
    squares = np.arange(-reach, reach + 1) ** 2
    filled = (squares[:, None] + squares <= radius**2).astype(np.float32)
    side = np.exp(-0.5 / alias**2)
    line = np.array([side, 1, side]) / (1 + 2 * side)
    soft = correlate(filled[None, ..., None], np.outer(line, line).astype(np.float32))
    kernel = soft[0, ..., 0] / filled.sum()
    return np.where(kernel < 1e-6, 0, kernel)


def zoomed(x: Floats, factor: float) -> Floats:
    """Enlarge the middle of each image to its size, linearly, the ends of the middle part on the
    ends of the result."""
    for axis in (1, 2):
        low, weight, start = _zoomed_line(x.shape[axis], factor)
        weight = weight.reshape([-1 if each == axis else 1 for each in range(4)])
        x = (1 - weight) * x.take(low + start, axis) + weight * x.take(low + start + 1, axis)
    return x


def _zoomed_line(side: int, factor: float) -> tuple[NDArray[np.int64], Floats, int]:
    part = math.ceil(side / factor)
    size = round(part * factor)
    place = np.linspace(0, part - 1, size)[(size - side) // 2 :][:side]
    low = np.minimum(place.astype(np.int64), part - 2)
    return low, (place - low).astype(np.float32), (side - part) // 2


def sample(x: Floats, rows: Floats, columns: Floats, border: Border) -> Floats:
    """Read each image at ``(N, h, w)`` places, in pixels, bilinearly: ``(N, h, w, C)``."""
    count, height, width, channels = x.shape
    flat, start = x.reshape(-1, channels), np.arange(count)[:, None, None] * (height * width)
    out = np.zeros((*rows.shape, channels), np.float32)
    for y, tall in _neighbours(rows, height, border):
        line = start + y * width
        for place, wide in _neighbours(columns, width, border):
            out += (tall * wide)[..., None] * flat.take(line + place, axis=0)
    return out


def _neighbours(
    places: Floats, side: int, border: Border
) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Yield the pixels before and after each place, and their weights."""
    low = np.floor(places)
    after = (places - low).astype(np.float32)
    for index, weight in ((low.astype(np.int64), 1 - after), (low.astype(np.int64) + 1, after)):
        inside = (index >= 0) & (index < side) if border == "zero" else 1
        yield fold(index, side, border), (weight * inside).astype(np.float32, copy=False)


def fold(index: NDArray[np.int64], side: int, border: Border) -> NDArray[np.int64]:
    """Map indices outside of ``0 … side - 1`` into it."""
    if border == "reflect":
        index = index % (2 * side)
        return np.minimum(index, 2 * side - 1 - index)
    if border == "mirror":
        index = index % (2 * side - 2)
        return np.minimum(index, 2 * side - 2 - index)
    return np.clip(index, 0, side - 1)
