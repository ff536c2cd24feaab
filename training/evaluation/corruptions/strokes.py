"""Strokes over and of digits, of MNIST-C: stripe, dotted line, zigzag and Canny edges.

Images are float32 ``(N, 28, 28, 1)``, 0-1.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from training.evaluation.corruptions import filters
from training.evaluation.corruptions.draws import Draws, Floats

SIDE = 28
THICKNESS = 2.3  # pixels at which a line has faded
LOW, HIGH = 0.1, 0.2  # thresholds of the edges


def stripe(x: Floats, _draws: Draws) -> Floats:
    """Invert the left and the right quarter."""
    x = x.copy()
    for quarter in (np.s_[:7], np.s_[21:]):
        x[:, :, quarter] = 1 - x[:, :, quarter]
    return x


def dotted_line(x: Floats, draws: Draws) -> Floats:
    """Draw a straight line from side to side, of dashes two pixels wide."""
    ends = draws.integers(0, 27, 2).astype(float)
    line = _line(np.zeros(len(x)), ends[:, 0], np.full(len(x), 27.0), ends[:, 1])
    line[..., np.arange(SIDE) // 2 % 2 == 0] = 0
    return x + line[..., None]


def zigzag(x: Floats, draws: Draws) -> Floats:
    """Draw a zigzag of six teeth, two pixels high and two wide, along a nearly level line."""
    row, rise = draws.integers(0, 27).astype(float), draws.integers(-5, 5).astype(float)
    theta = np.arctan(rise / 23)
    length = 23 / np.cos(theta)
    last = -2 / (2 * (length - 20))
    points = [(0 * length, 0 * length)]
    points += [(0 * length + 4 * n + 2, 0 * length + 2 * (-1) ** n) for n in range(6)]
    points += [(length, last)]
    cosine, sine = np.cos(theta), np.sin(theta)
    turned = [(2 + a * cosine - b * sine, row + a * sine + b * cosine) for a, b in points]
    for start, end in pairwise(turned):
        x = x + _line(*start, *end)[..., None]
    return x


def _line(
    left: NDArray[np.float64],
    top: NDArray[np.float64],
    right: NDArray[np.float64],
    bottom: NDArray[np.float64],
) -> Floats:
    """Return straight lines between points ``(N,)``, fading with the vertical distance, 0-1,
    ``(N, 28, 28)``."""
    x0, y0, x1, y1 = (each[:, None, None] for each in (left, top, right, bottom))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    distance = np.abs(rows - (y0 + (y1 - y0) / (x1 - x0) * (columns - x0)))
    ink = np.log(1 - np.minimum(distance, THICKNESS - 1e-10) / THICKNESS) + 1
    there = (columns >= np.floor(x0)) & (columns < np.ceil(x1))
    return np.where(there, np.clip(ink, 0, 1), 0).astype(np.float32)


def canny_edges(x: Floats, _draws: Draws) -> Floats:
    """Keep the edges alone, by Canny, 1986: Gaussian of one pixel, Sobel, thinning, hysteresis."""
    soft = filters.gaussian(x, 1.0, border="zero")[..., 0]
    padded = np.pad(soft, ((0, 0), (1, 1), (1, 1)), "symmetric")
    smooth_y = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    smooth_x = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    across = smooth_y[:, :, 2:] - smooth_y[:, :, :-2]
    down = smooth_x[:, 2:] - smooth_x[:, :-2]
    strength = np.hypot(across, down)
    weak = _ridges(strength, across, down) & (strength >= LOW)
    strong = weak & (strength >= HIGH)
    while True:  # what touches a strong edge is one
        grown = weak & _touching(strong)
        if np.array_equal(grown, strong):
            return strong[..., None].astype(np.float32)
        strong = grown


def _ridges(strength: Floats, across: Floats, down: Floats) -> NDArray[np.bool_]:
    """Return where the gradient is not weaker than on either side along its direction, where it is
    interpolated; the outermost pixels are none."""

    def shifted(y: int, x: int) -> Floats:
        return np.roll(strength, (-y, -x), axis=(1, 2))

    steep = np.abs(down) >= np.abs(across)
    smaller = np.minimum(np.abs(down), np.abs(across))
    weight = smaller / np.maximum(np.maximum(np.abs(down), np.abs(across)), 1e-12)
    same = down * across >= 0
    kept = np.ones_like(same)
    for side in (1, -1):
        straight = np.where(steep, shifted(side, 0), shifted(0, side))
        falling = shifted(side, side)
        rising = np.where(steep, shifted(side, -side), shifted(-side, side))
        diagonal = np.where(same, falling, rising)
        kept &= weight * diagonal + (1 - weight) * straight <= strength
    kept[:, [0, -1]] = False
    kept[:, :, [0, -1]] = False
    return kept


def _touching(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels that are in the mask or touch it, diagonals included."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
    return rows[:, :, :-2] | rows[:, :, 1:-1] | rows[:, :, 2:]
