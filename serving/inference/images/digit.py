"""Make a picture of one digit look like the pictures of MNIST: light on dark, 28x28, centred.

The procedure published with MNIST: the ink is scaled into 20x20 keeping its aspect, antialiased,
and placed in 28x28 with its centre of mass in the middle. First the paper, its shadows and its
specks are removed, as the ground of the data set is black. Knows nothing of files, of transparency
or of any model. The constants were chosen by accuracy on transformed training images.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, BOX = 28, 20
BLANK = 8  # of 256 levels: an image of less contrast is paper without ink

_WORK = 256  # longest side of the working image: finer detail is lost in a box of 20 pixels
_BLACK = 16  # the brightest ground that counts as MNIST's black, JPEG artefacts included
_TONE = 0.15  # of the contrast: a border pixel this near to pure paper or pure ink ...
_TONES = 0.5  # ... on this share of the border means two tones, not uneven light
_EVEN = 0.04  # of the contrast: the largest median deviation of an evenly lit border
_INK = 0.2  # of the full ink: where a stroke begins
_NOISE = 4.0  # deviations of the paper that ink must exceed, up to _SURE
_SURE = 0.6  # of the peak: certainly ink
_SPECK = 0.03  # of the largest part: smaller parts are dust, not strokes
_CELLS = 96  # longest side of the grid on which parts are separated
_FULL = 0.75  # quantile of the scaled ink that counts as full: the peak may be one dark crossing
_LOW, _HIGH = 0.05, 0.95  # of the full ink: the levels that become 0 and 255

_Floats = NDArray[np.float32]
_Mask = NDArray[np.bool_]
_Box = tuple[int, int, int, int]


def normalise(image: Image.Image) -> NDArray[np.uint8]:
    """Return ``image``, of mode L, as uint8 ``(28, 28)``: unchanged if it is 28x28 on a black
    ground, as all of MNIST; black if it is blank."""
    pixels = np.asarray(image)
    if is_normal(pixels):
        return pixels
    ink, noise = _without_paper(_reduced(image))
    peak = float(ink.max())
    if peak < BLANK:
        return np.zeros((SIDE, SIDE), np.uint8)
    full = float(ink[ink > _SURE * peak].mean())
    threshold = max(_INK * full, min(_NOISE * noise, _SURE * full))
    return _centred(_boxed(*_cropped(ink, ink > threshold)))


def is_normal(pixels: NDArray[np.uint8]) -> bool:
    """Return True if the image is 28x28 on a black ground."""
    if pixels.shape[:2] != (SIDE, SIDE):
        return False
    border = pixels.take(_BORDER)
    return 2 * int(np.count_nonzero(border <= _BLACK)) >= len(border)


def _border(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate((pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]))


_BORDER = _border(np.arange(SIDE * SIDE).reshape(SIDE, SIDE))


def _reduced(image: Image.Image) -> _Floats:
    factor = -(-max(image.size) // _WORK)
    return np.asarray(image.reduce(factor) if factor > 1 else image).astype(np.float32)


def _without_paper(pixels: _Floats) -> tuple[_Floats, float]:
    """Return the ink, positive on a paper of 0, and the deviation of the paper."""
    paper, noise = _paper(pixels)
    ink = pixels - paper
    if ink.max() < -ink.min():
        shade = np.maximum(paper, paper.max() / 4)
        ink = -ink * (paper.max() / shade)  # a shadow dims the contrast
    return np.maximum(ink, 0), noise


def _paper(pixels: _Floats) -> tuple[_Floats, float]:
    """Estimate the brightness of the paper, and its deviation, from the border of the image.

    A crop may be so tight that ink and paper share the border; then the corners are paper. In even
    light the paper has one level; in uneven light it is a quadratic surface, fitted repeatedly to
    the border pixels that lie near it, as ink may touch the border.
    """
    border = _border(pixels)
    low, high = pixels.min(), pixels.max()
    tones = np.minimum(border - low, high - border) <= _TONE * (high - low)
    if tones.mean() >= _TONES:
        half = (low + high) / 2
        corners = np.median(pixels[[0, 0, -1, -1], [0, -1, 0, -1]])
        return _level(border[(border > half) == (corners > half)])
    middle, noise = _level(border)
    off = np.abs(border - middle)
    if np.median(off) <= _EVEN * (high - low):
        return middle, noise
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in pixels.shape), indexing="ij")
    terms = np.stack((np.ones_like(x), x, y, x * x, x * y, y * y), -1)
    edge = _border(terms)
    for _ in range(5):
        near = off <= max(2.0, 4.5 * float(np.median(off)))
        surface = np.linalg.lstsq(edge[near], border[near], rcond=None)[0]
        off = np.abs(border - edge @ surface)
    paper = (terms @ surface).clip(low, high).astype(np.float32)
    return paper, 1.5 * float(np.median(off))


def _level(border: _Floats) -> tuple[_Floats, float]:
    middle = np.asarray(np.median(border), np.float32)
    return middle, 1.5 * float(np.median(np.abs(border - middle)))


def _cropped(ink: _Floats, mask: _Mask) -> tuple[_Floats, _Box]:
    """Remove the specks; return the ink and the box around the remaining strokes."""
    left, top, right, bottom = _bounds(mask)
    ink, mask = ink[top:bottom, left:right], mask[top:bottom, left:right]
    strokes = _strokes(mask)
    return np.where(strokes, ink, 0), _bounds(mask & strokes)


def _bounds(mask: _Mask) -> _Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _strokes(mask: _Mask) -> _Mask:
    """Return the parts of ``mask`` that are larger than specks, with a margin for soft edges.

    The grid is one integer, a bit for each cell: a part grows over all its neighbours by a few
    shifts, in a tenth of the time of a flood fill over cells.
    """
    factor = -(-max(mask.shape) // _CELLS)
    cells = np.pad(np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).reduce(factor)) > 0, 2)
    packed = np.packbits(cells)
    grid = int.from_bytes(packed.tobytes())
    parts = _parts(grid, cells.shape[1])
    largest = max(part.bit_count() for part in parts)
    kept = sum(part for part in parts if part.bit_count() >= _SPECK * largest)
    if kept == grid:
        return np.ones_like(mask)
    kept = _grown(_grown(kept, cells.shape[1]), cells.shape[1])
    bits = np.unpackbits(np.frombuffer(kept.to_bytes(packed.size), np.uint8), count=cells.size)
    fine = bits.reshape(cells.shape)[2:-2, 2:-2].repeat(factor, 0).repeat(factor, 1)
    return fine[: mask.shape[0], : mask.shape[1]].astype(bool)


def _parts(grid: int, width: int) -> list[int]:
    parts = []
    while grid:
        part, grown = 0, grid & -grid
        while grown != part:
            part, grown = grown, _grown(grown, width) & grid
        parts.append(part)
        grid ^= part
    return parts


def _grown(bits: int, width: int) -> int:
    bits |= bits << 1 | bits >> 1
    return bits | bits << width | bits >> width


def _boxed(ink: _Floats, box: _Box) -> _Floats:
    """Scale the content of ``box`` into 20x20, and its ink to 0 to 1."""
    width, height = box[2] - box[0], box[3] - box[1]
    scale = BOX / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small: _Floats = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.HAMMING, box))
    full = np.quantile(small[small > _INK * small.max()], _FULL)
    shares: _Floats = (small / full - _LOW) / (_HIGH - _LOW)
    return shares.clip(0, 1)


def _centred(small: _Floats) -> NDArray[np.uint8]:
    """Move the centre of mass to pixel 14, as MNIST does, as far as the frame allows."""
    top, left = (
        min(max(round(SIDE / 2 - float(np.average(np.arange(n), weights=ink))), 0), SIDE - n)
        for n, ink in zip(small.shape, (small.sum(1), small.sum(0)), strict=True)
    )
    framed = np.zeros((SIDE, SIDE), np.uint8)
    framed[top : top + small.shape[0], left : left + small.shape[1]] = np.rint(small * 255)
    return framed
