"""Stand-in until the real module arrives: decode, convert, resize."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.errors import ImageTooLarge, InvalidImage

FITS = ("stretch", "digit")


@dataclass(frozen=True)
class PixelSpec:
    """What a model expects."""

    height: int
    width: int
    channels: int
    fit: str


def read(data: bytes, spec: PixelSpec, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode one upload to (H, W, C)."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > max_pixels:
                raise ImageTooLarge(f"More than {max_pixels} pixels.")
            grey = image.convert("L" if spec.channels == 1 else "RGB")
    except Image.DecompressionBombError as exc:
        raise ImageTooLarge(f"More than {max_pixels} pixels.") from exc
    except (OSError, ValueError, SyntaxError) as exc:
        raise InvalidImage("These bytes are not a readable image.") from exc
    grey = grey.resize((spec.width, spec.height), Image.Resampling.BILINEAR)
    return np.asarray(grey).reshape(spec.height, spec.width, spec.channels)
