from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from training.data import pixels
from training.errors import UnreadableImage


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_an_image_of_the_right_size_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, size=(9, 9, 3), dtype=np.uint8)
    assert np.array_equal(pixels.resize(pixels.decode(pixels.encode_png(image)), (9, 9)), image)


def test_a_grey_image_is_encoded_without_loss() -> None:
    image = np.random.default_rng(0).integers(0, 256, size=(9, 9, 1), dtype=np.uint8)
    assert np.array_equal(
        pixels.resize(pixels.decode(pixels.encode_png(image)), (9, 9)), image.repeat(3, axis=2)
    )


def test_stretching_uses_the_antialiased_bilinear_filter() -> None:
    stripes = Image.fromarray(np.tile([[0, 255]], (4, 20)).astype(np.uint8))
    greys = pixels.resize(pixels.decode(encoded(stripes)), (4, 4))
    assert greys.min() > 110
    assert greys.max() < 145


def test_an_image_is_rotated_by_its_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right
    image = Image.new("RGB", (16, 16), "black")
    image.paste("white", (0, 0, 8, 16))
    turned = pixels.resize(pixels.decode(encoded(image, exif=exif.tobytes())), (16, 16))
    assert turned[:8].min() == 255
    assert turned[8:].max() == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    data = encoded(clear.convert(mode) if mode != "P" else clear.quantize(4))
    assert pixels.resize(pixels.decode(data), (4, 4)).min() == 255


def test_the_first_frame_of_an_animation_is_used() -> None:
    first, second = Image.new("RGB", (4, 4), "white"), Image.new("RGB", (4, 4), "black")
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert pixels.resize(pixels.decode(data), (4, 4)).min() == 255


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("damage", ["empty", "text", "head", "half"])
def test_damaged_bytes_are_unreadable(kind: str, damage: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    cut = {"empty": b"", "text": b"<html>", "head": data[:20], "half": data[: len(data) // 2]}
    with pytest.raises(UnreadableImage, match="not a readable image"):
        pixels.resize(pixels.decode(cut[damage]), (8, 8))
