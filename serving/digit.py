"""Make any picture of one digit look like the pictures of MNIST: light on dark, 28x28, centred.

The procedure is the one published with MNIST (http://yann.lecun.com/exdb/mnist/): the ink is scaled
into 20x20 keeping its aspect, antialiased, and placed in 28x28 with its centre of mass in the middle.
Knows Pillow and NumPy; knows nothing of files, of transparency or of any model.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, BOX = 28, 20

WORK = 400  # longest side of what is looked at; finer detail is less than 1/20 of a digit
BLACK = 16  # a border up to this is the dark ground of MNIST
LOW, HIGH = 0.10, 0.75  # shares of the contrast: less is paper, more is full ink
EDGE = 0.3
FILTER = Image.Resampling.BOX


def normalise(image: Image.Image) -> NDArray[np.uint8]:
    """Return ``image``, of mode L, as uint8 ``(28, 28)``; a digit of MNIST comes back unchanged."""
    pixels = np.asarray(image)
    if pixels.shape == (SIDE, SIDE) and np.count_nonzero(_border(pixels) > BLACK) < 2 * SIDE:
        return pixels
    ink = _ink(_reduced(image))
    box = _bounds(ink)
    if box is None:
        return np.zeros((SIDE, SIDE), np.uint8)
    return _centred(_scaled(ink, box))


def _border(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate((pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]))


def _reduced(image: Image.Image) -> NDArray[np.float32]:
    factor = -(-max(image.size) // WORK)
    return np.asarray(image.reduce(factor) if factor > 1 else image).astype(np.float32)


def _ink(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    paper = float(np.median(_border(pixels)))
    ink = pixels - paper
    if -ink.min() > ink.max():
        ink = -ink
    contrast = ink.max()
    return np.clip((ink - LOW * contrast) / ((HIGH - LOW) * max(contrast, 1)), 0, 1)


def _bounds(ink):
    rows = np.flatnonzero((ink > EDGE).any(1))
    cols = np.flatnonzero((ink > EDGE).any(0))
    if not len(rows):
        return None
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


def _scaled(ink, box):
    w, h = box[2] - box[0], box[3] - box[1]
    s = BOX / max(w, h)
    size = max(1, round(w * s)), max(1, round(h * s))
    small = Image.fromarray(ink).resize(size, FILTER, box)
    return np.asarray(small)


def _centred(small):
    small = small / max(small.max(), 1e-6)
    h, w = small.shape
    m = small.sum()
    y = np.arange(h) @ small.sum(1) / m
    x = np.arange(w) @ small.sum(0) / m
    top = min(max(round((SIDE - 1) / 2 - y), 0), SIDE - h)
    left = min(max(round((SIDE - 1) / 2 - x), 0), SIDE - w)
    out = np.zeros((SIDE, SIDE), np.uint8)
    out[top : top + h, left : left + w] = np.rint(np.clip(small, 0, 1) * 255)
    return out
