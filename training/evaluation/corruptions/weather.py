"""Weather and light: snow, fog, spatter and brightness.

Images are float32 ``(N, H, W, C)``, 0-1.
"""

import numpy as np

from training.evaluation.corruptions import filters
from training.evaluation.corruptions.blur import streak
from training.evaluation.corruptions.draws import Draws, Floats

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
MUD = 63 / 255


def snow(
    x: Floats,
    draws: Draws,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    kept: float,
) -> Floats:
    """Whiten the image, and add flakes that fall in one direction, and the same turned by 180°."""
    height, width = x.shape[1:3]
    flakes = np.float32(mean) + np.float32(deviation) * draws.normal(height, width, 1)
    flakes = filters.zoomed(flakes, zoom)
    flakes[flakes < threshold] = 0
    flakes = np.floor(np.clip(flakes, 0, 1) * np.float32(255)) / np.float32(255)
    flakes = streak(flakes, radius, sigma, draws.between(-135, -45))
    grey: Floats = (x * LUMINANCE).sum(axis=3, keepdims=True)
    whiter: Floats = np.maximum(x, grey * 1.5 + 0.5)
    white = np.float32(kept) * x + np.float32(1 - kept) * whiter
    return white + flakes + flakes[:, ::-1, ::-1]


def fog(x: Floats, draws: Draws, density: float, decay: float) -> Floats:
    """Add a cloud, and scale to the brightest value that the image had."""
    height, width = x.shape[1:3]
    cloud = plasma(draws, 2 ** int(np.ceil(np.log2(max(height, width)))), decay)
    brightest: Floats = x.max(axis=(1, 2, 3), keepdims=True)
    thick = x + np.float32(density) * cloud[:, :height, :width, None]
    return thick * brightest / (brightest + np.float32(density))


def plasma(draws: Draws, side: int, decay: float) -> Floats:
    """Return clouds by the diamond-square algorithm, 0-1, ``(N, side, side)``; they tile.

    ``side`` is a power of two. The noise is the square of an amplitude that each level divides by
    ``decay``, as in the published program.
    """
    noise = draws.between(-1, 1, side, side)
    cloud: Floats = np.zeros_like(noise)
    step, amplitude = side, 100.0
    while step >= 2:
        half, scale = step // 2, np.float32(amplitude**2)
        corners = cloud[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        centres = (pairs + np.roll(pairs, -1, axis=2)) / 4 + scale * noise[
            :, half::step, half::step
        ]
        cloud[:, half::step, half::step] = centres
        for y, x, across in ((0, half, 1), (half, 0, 2)):  # between two corners and two centres
            ends = corners + np.roll(corners, -1, axis=3 - across)
            middles = centres + np.roll(centres, 1, axis=across)
            cloud[:, y::step, x::step] = (ends + middles) / 4 + scale * noise[:, y::step, x::step]
        step, amplitude = half, amplitude / decay
    cloud -= cloud.min(axis=(1, 2), keepdims=True)
    highest: Floats = cloud.max(axis=(1, 2), keepdims=True)
    return cloud / highest


def spatter(
    x: Floats,
    draws: Draws,
    mean: float,
    deviation: float,
    sigma: float,
    threshold: float,
    edge: float,
) -> Floats:
    """Cover the image with drops of mud, on a grey image."""
    liquid = np.float32(mean) + np.float32(deviation) * draws.normal(*x.shape[1:3], 1)
    drops = (filters.gaussian(liquid, sigma) > threshold).astype(np.float32)
    drops = filters.gaussian(drops, edge)
    drops[drops < 0.8] = 0
    return x * (1 - drops) + np.float32(MUD) * drops


def brightness(x: Floats, _draws: Draws, added: float) -> Floats:
    """Add to the value of the colour (HSV); hue and saturation stay."""
    value: Floats = x.max(axis=3, keepdims=True)
    brighter: Floats = np.minimum(value + np.float32(added), 1)
    return np.where(value > 0, x * (brighter / np.maximum(value, 1e-6)), brighter)
