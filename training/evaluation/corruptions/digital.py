"""What image processing does: contrast, elastic deformation, large pixels and JPEG.

Images are float32 ``(N, H, W, C)``, 0-1. Knows Pillow for the last two.
"""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image

from training.evaluation.corruptions import filters
from training.evaluation.corruptions.draws import Draws, Floats


def contrast(x: Floats, _draws: Draws, kept: float) -> Floats:
    """Move every value towards the mean of its channel."""
    mean: Floats = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) * np.float32(kept) + mean


def elastic_transform(
    x: Floats, draws: Draws, strength: float, sigma: float, shift: float
) -> Floats:
    """Move three points by up to ``shift`` pixels, which is an affine map, and then every pixel by
    uniform noise of ``strength`` pixels, smoothed by ``sigma`` pixels."""
    count, height, width, _ = x.shape
    middle, third = np.array([height // 2, width // 2]), min(height, width) // 3
    corners = middle + third * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + draws.between(-shift, shift, 3, 2)
    known = np.concatenate([moved, np.ones((count, 3, 1))], axis=2)
    back = np.linalg.solve(known, np.broadcast_to(corners.astype(float), (count, 3, 2)))
    rows, columns = np.mgrid[:height, :width]
    plane = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(-1, 3)
    places = (plane @ back).reshape(count, height, width, 2).astype(np.float32)
    x = filters.sample(x, places[..., 1], places[..., 0], "mirror")
    if not strength:
        return x
    noise = draws.between(-1, 1, height, width, 2)
    noise = np.float32(strength) * filters.gaussian(noise, sigma, border="reflect", truncate=3)
    return filters.sample(x, rows + noise[..., 1], columns + noise[..., 0], "reflect")


def pixelate(x: Floats, _draws: Draws, share: float) -> Floats:
    """Shrink each side to a share of it, and enlarge again, both by areas."""

    def enlarged(image: Image.Image) -> Image.Image:
        small = int(image.width * share), int(image.height * share)
        return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)

    return _through(x, enlarged)


def jpeg_compression(x: Floats, _draws: Draws, quality: float) -> Floats:
    """Encode as JPEG and decode, by Pillow's defaults but for the quality."""

    def decoded(image: Image.Image) -> Image.Image:
        file = BytesIO()
        image.save(file, "JPEG", quality=int(quality))
        return Image.open(file)

    return _through(x, decoded)


def _through(x: Floats, process: Callable[[Image.Image], Image.Image]) -> Floats:
    """Process each image of three channels as a Pillow image."""
    bytes_ = np.rint(x * 255).astype(np.uint8)
    done = [np.asarray(process(Image.fromarray(each))) for each in bytes_]
    return np.stack(done).astype(np.float32) / np.float32(255)
