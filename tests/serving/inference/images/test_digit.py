"""However a digit is drawn, it becomes what MNIST would hold."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from serving.inference.images.digit import (
    BLANK,
    _border,
    _centred,
    _cropped,
    _paper,
    _reduced,
    _strokes,
    _without_paper,
    is_normal,
    normalise,
)

Grey = NDArray[np.float64]


def four(side: int = 200) -> Grey:
    """Draw a 4, 0 to 1, in a square of ``side`` that its ink touches nowhere."""
    image = Image.new("L", (400, 400), 0)
    draw = ImageDraw.Draw(image)
    draw.line([(190, 80), (110, 220), (290, 220)], fill=255, width=32, joint="curve")
    draw.line([(240, 130), (240, 320)], fill=255, width=32)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS)) / 255


def picture(pixels: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def on_paper(ink: Grey, paper: float = 255, pen: float = 0) -> Grey:
    return paper + (pen - paper) * ink


def difference(image: Image.Image) -> float:
    """Return the distance of a picture of ``four`` from the plainest one, in levels of grey."""
    plain = normalise(picture(on_paper(four())))
    return float(np.abs(normalise(image).astype(int) - plain).mean())


def test_a_digit_is_light_on_black_and_reaches_full_ink() -> None:
    digit = normalise(picture(on_paper(four())))
    assert digit.max() == 255
    assert np.median(digit) == 0
    assert not digit[[0, -1]].any()


def test_the_longer_side_of_the_ink_is_twenty_pixels() -> None:
    rows, columns = np.nonzero(normalise(picture(on_paper(four()))))
    assert np.ptp(rows) + 1 == 20
    assert 12 <= np.ptp(columns) + 1 < 20


def test_the_centre_of_mass_is_in_the_middle() -> None:
    digit = normalise(picture(on_paper(four()))).astype(float)
    for axis in (0, 1):
        assert abs(np.average(np.arange(28), weights=digit.sum(axis)) - 14) <= 0.5


def test_a_digit_of_mnist_shape_is_unchanged() -> None:
    digit = normalise(picture(on_paper(four())))
    assert np.array_equal(normalise(Image.fromarray(digit)), digit)


def test_a_small_dark_digit_on_light_is_only_inverted() -> None:
    digit = normalise(picture(on_paper(four())))
    again = normalise(Image.fromarray(255 - digit))
    assert np.abs(again.astype(int) - digit).mean() < 1


@pytest.mark.parametrize(
    ("side", "levels"), [(40, 6), (60, 2), (100, 2), (200, 0.1), (700, 0.5), (2500, 0.7)]
)
def test_size_does_not_matter(side: int, levels: float) -> None:
    assert difference(picture(on_paper(four(side)))) < levels


@pytest.mark.parametrize("place", [(0, 0), (0, 300), (150, 0), (150, 300), (70, 111)])
def test_place_does_not_matter(place: tuple[int, int]) -> None:
    paper = np.zeros((350, 500))
    paper[place[0] :, place[1] :][:200, :200] = four()
    assert difference(picture(on_paper(paper))) < 2.5


@pytest.mark.parametrize(("paper", "pen"), [(0, 255), (255, 0), (180, 110), (60, 140), (240, 225)])
def test_the_colours_of_paper_and_pen_do_not_matter(paper: float, pen: float) -> None:
    assert difference(picture(on_paper(four(), paper, pen))) < 0.2


def test_noise_is_not_ink() -> None:
    noise = np.random.default_rng(0).normal(0, 20, (200, 200))
    digit = picture(on_paper(four(), 220, 40) + noise)
    assert difference(digit) < 1
    assert np.median(normalise(digit)) == 0


def light(x: float, y: float, bend: float = 0) -> Grey:
    """Return the brightness of a square in light that changes along both axes, from 0 to 1."""
    rows, columns = np.mgrid[-0.5:0.5:200j, -0.5:0.5:200j]
    bent = bend * (rows**2 + columns**2 + rows * columns)
    brightness: Grey = 0.75 + x * columns + y * rows - bent
    return brightness


@pytest.mark.parametrize("tilt", [(0.4, 0), (0, -0.4), (0.3, 0.3), (0.1, 0.2, 0.5)], ids=str)
@pytest.mark.parametrize(("paper", "pen"), [(230, 60), (230, 150)])
def test_uneven_light_is_not_ink(tilt: tuple[float, ...], paper: float, pen: float) -> None:
    assert difference(picture(on_paper(four(), paper, pen) * light(*tilt))) < 0.6


def test_ink_may_touch_the_border_in_uneven_light() -> None:
    cut = np.s_[:, 45:]
    assert difference(picture((on_paper(four(), 230, 60) * light(0.4, 0.2))[cut])) < 0.1


def test_specks_are_not_ink() -> None:
    paper = np.pad(four(), 50)
    for y, x in ((5, 5), (290, 20), (30, 280), (270, 150)):
        paper[y : y + 3, x : x + 3] = 1
    assert difference(picture(on_paper(paper))) < 2.1


def test_a_stroke_apart_from_the_others_stays() -> None:
    paper = np.zeros((100, 100))
    paper[20:80, 30:40] = paper[20:30, 60:75] = 1
    assert normalise(picture(on_paper(paper)))[:, 18:].any()


@pytest.mark.parametrize(("paper", "pen"), [(255, 0), (0, 255), (90, 60), (150, 190)])
def test_a_crop_without_margin_is_read(paper: float, pen: float) -> None:
    ink = four()
    rows, columns = np.flatnonzero(ink.max(1) > 0.2), np.flatnonzero(ink.max(0) > 0.2)
    tight = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert difference(picture(on_paper(tight, paper, pen))) < 0.2


@pytest.mark.parametrize(("contrast", "blank"), [(BLANK, False), (BLANK - 1, True)])
def test_ink_of_little_contrast_is_paper(contrast: int, blank: bool) -> None:
    assert normalise(picture(on_paper(four(), 200, 200 - contrast))).any() != blank


@pytest.mark.parametrize(
    ("level", "dark", "normal"),
    [(16, 108, True), (17, 108, False), (0, 54, True), (0, 53, False)],
)
@pytest.mark.parametrize("step", [1, -1])
def test_half_of_a_black_border_makes_a_digit_normal(
    level: int, dark: int, normal: bool, step: int
) -> None:
    pixels = np.pad(np.full((20, 20), 150, np.uint8), 4, constant_values=level)
    border = [*np.ndindex(28, 28)]
    border = [(y, x) for y, x in border if y in (0, 27) or x in (0, 27)]
    for y, x in border[::step][dark:]:
        pixels[y, x] = 200
    assert len(border) == 108
    assert is_normal(pixels) is normal
    assert np.array_equal(normalise(Image.fromarray(pixels)), pixels) is normal


def test_ink_is_stretched_from_5_to_95_per_cent_of_its_upper_quartile() -> None:
    ink = np.pad(np.repeat([[1, 0.95, 0.5, 0.27]], 40, 0).repeat(10, 1), 20)
    row = normalise(picture(on_paper(ink)))[14].astype(int)
    levels = [row[place] for place in (9, 14, 19, 25)]
    assert np.abs(np.subtract(levels, [255, 255, 132, 65])).max() <= 1


@pytest.mark.parametrize(("side", "kept"), [(7, True), (5, False)])
def test_a_part_of_three_per_cent_of_the_largest_is_a_stroke(side: int, kept: bool) -> None:
    """The largest part has 1,200 pixels, so 36 are enough."""
    paper = np.zeros((90, 90))
    paper[20:60, 20:50] = 1
    alone = normalise(picture(on_paper(paper)))
    paper[20 : 20 + side, 70 : 70 + side] = 1
    assert np.array_equal(normalise(picture(on_paper(paper))), alone) != kept


def test_a_straight_stroke_stays_thin() -> None:
    paper = np.zeros((120, 120))
    paper[10:110, 60:62] = 1
    assert np.count_nonzero(normalise(picture(on_paper(paper))).any(0)) == 1


def test_parts_touch_at_their_corners_and_not_across_a_gap() -> None:
    diagonal = np.eye(30, dtype=bool).repeat(2, 1)
    assert _strokes(diagonal).all()
    apart = np.zeros((30, 60), bool)
    apart[:, :10] = apart[14, 30] = True
    strokes = _strokes(apart)
    assert strokes[:, :12].all()  # a margin of two cells
    assert not strokes[:, 12:].any()


@pytest.mark.parametrize(
    ("size", "shape"), [((256, 20), (20, 256)), ((257, 20), (10, 129)), ((20, 513), (171, 7))]
)
def test_a_large_picture_is_reduced(size: tuple[int, int], shape: tuple[int, int]) -> None:
    reduced = _reduced(Image.new("L", size))
    assert reduced.shape == shape
    assert reduced.dtype == np.float32


def test_a_thin_pen_reaches_full_ink() -> None:
    image = Image.new("L", (400, 400), 255)
    ImageDraw.Draw(image).line([(100, 60), (300, 60), (180, 340)], fill=0, width=2)
    assert (normalise(image) > 200).sum() >= 10


def test_a_soft_pen_is_read() -> None:
    assert difference(picture(on_paper(four())).filter(ImageFilter.GaussianBlur(3))) < 4.5


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (28, 28), (27, 29), (3000, 2000)])
@pytest.mark.parametrize("tone", [0, 128, 255])
def test_a_blank_picture_is_black(size: tuple[int, int], tone: int) -> None:
    assert not normalise(Image.new("L", size, tone)).any() or (size == (28, 28) and tone <= 16)


def test_a_blank_picture_has_the_type_of_a_digit() -> None:
    assert normalise(Image.new("L", (9, 9), 200)).dtype == np.uint8


def test_pixels_with_a_channel_axis_may_be_normal() -> None:
    assert is_normal(np.zeros((28, 28, 1), np.uint8))


def test_the_border_is_each_outer_pixel_once() -> None:
    border = _border(np.arange(20).reshape(4, 5))
    assert sorted(border.tolist()) == [0, 1, 2, 3, 4, 5, 9, 10, 14, 15, 16, 17, 18, 19]


@pytest.mark.parametrize(("faint", "ink"), [(20, False), (21, True)])
def test_a_stroke_begins_above_a_fifth_of_the_mean_of_sure_ink(faint: int, ink: bool) -> None:
    """Sure ink is more than 60 of the peak of 100."""
    dark = np.zeros((60, 60), np.uint8)
    dark[10:14, 10:30], dark[14:40, 10:30] = 100, 60
    alone = normalise(Image.fromarray(255 - dark))
    dark[10:40, 30:45] = faint
    assert np.array_equal(normalise(Image.fromarray(255 - dark)), alone) is not ink


def framed(border: list[float], low: float, high: float) -> NDArray[np.float32]:
    """Return 10x10 pixels with the levels of ``border`` by turns; inside are the extremes."""
    pixels = np.full((10, 10), low, np.float32)
    pixels[5, 5] = high
    edge = np.ones((10, 10), bool)
    edge[1:-1, 1:-1] = False
    pixels[edge] = np.resize(border, 36)
    return pixels


@pytest.mark.parametrize(
    ("border", "low", "high", "level", "deviation"),
    [
        ([15, 60, 60, 15], 0, 100, 15, 0),  # two tones, on half of the border
        ([46, 54], 0, 100, 50, 6),  # even light, just so
    ],
    ids=["two tones", "even light"],
)
def test_the_paper_has_one_level_up_to_the_bounds(
    border: list[float], low: float, high: float, level: float, deviation: float
) -> None:
    pixels = framed(border, low, high)
    if level == 15:
        pixels[[0, 0, -1, -1], [0, -1, 0, -1]] = 15
        pixels[0, 3:5] = 60
    paper, noise = _paper(pixels)
    assert (paper.ndim, float(paper), noise) == (0, level, deviation)
    assert paper.dtype == np.float32


def test_the_evenness_of_light_is_measured_against_the_contrast() -> None:
    assert _paper(framed([145, 155], 100, 200))[0].ndim == 2


def test_the_corners_of_a_tight_crop_are_paper() -> None:
    pixels = np.full((10, 10), 100, np.float32)
    pixels[[0, 0, -1, -1], [0, -1, 0, -1]] = 140
    paper, noise = _paper(pixels)
    assert (float(paper), noise) == (140, 0)


def surface(bend: float = 0) -> NDArray[np.float32]:
    y, x = np.mgrid[-1:1:20j, -1:1:20j]
    levels: NDArray[np.float32] = (120 + 40 * x + 15 * y + bend * (x * x + y * y)).astype("f4")
    return levels


@pytest.mark.parametrize(
    ("noise", "ink"), [(0, 2.6), (0, 60), (1, 5.3)], ids=["faint ink", "ink", "noise"]
)
def test_ink_on_the_border_does_not_bend_the_paper(noise: float, ink: float) -> None:
    pixels = surface()
    chequer = noise * (1 - 2 * (np.indices((20, 20)).sum(0) % 2))
    pixels += chequer.astype(np.float32)
    for place in ((0, 6), (-1, 13), (6, -1), (13, 0)):
        pixels[place] = surface()[place] + ink
    paper, deviation = _paper(pixels)
    assert paper.dtype == np.float32
    assert np.abs(paper - surface()).mean() < 0.01 + 0.1 * noise
    assert abs(deviation - 1.5 * noise) < 0.01 + 0.2 * noise


@pytest.mark.parametrize("bend", [60, -60])
def test_the_paper_has_no_level_beyond_those_of_the_picture(bend: float) -> None:
    pixels = surface(bend)
    pixels[1:-1, 1:-1] = np.median(_border(pixels))
    paper, _ = _paper(pixels)
    assert paper.ndim == 2
    if bend > 0:
        assert paper.min() == pixels.min()
    else:
        assert paper.max() == pixels.max()


def test_the_contrast_of_ink_in_shadow_grows_at_most_fourfold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paper = np.array([[200, 40, 100]], np.float32)
    monkeypatch.setattr("serving.inference.images.digit._paper", lambda _: (paper, 0.0))
    assert _without_paper(paper / np.float32(2))[0].tolist() == [[100, 80, 100]]


def test_a_speck_becomes_paper_and_leaves_the_box() -> None:
    mask = np.zeros((60, 60), bool)
    mask[10:40, 20:45] = mask[50, 50] = True
    ink, box = _cropped(np.where(mask, 9, 3).astype(np.float32), mask)
    assert box == (0, 0, 25, 30)
    assert ink.shape == (41, 31)
    assert ink[0, 0] == 9
    assert ink[-1, -1] == 0


@pytest.mark.parametrize(
    ("small", "place"),
    [
        (np.ones((20, 20)), (4, 4)),
        (np.ones((20, 4)), (4, 12)),
        (np.pad([[1.0]], ((0, 19), (19, 0))), (8, 0)),
        (np.pad([[1.0]], ((19, 0), (0, 19))), (0, 8)),
    ],
    ids=["square", "stroke", "corner", "other corner"],
)
def test_the_ink_is_moved_as_far_as_the_frame_allows(
    small: NDArray[np.float64], place: tuple[int, int]
) -> None:
    expected = np.zeros((28, 28))
    expected[place[0] :, place[1] :][: small.shape[0], : small.shape[1]] = small * 255
    assert np.array_equal(_centred(small.astype(np.float32)), expected)


@settings(deadline=None, max_examples=200)
@given(
    arrays(
        np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 255)
    )
)
def test_any_picture_becomes_a_digit(pixels: NDArray[np.uint8]) -> None:
    digit = normalise(Image.fromarray(pixels))
    assert digit.shape == (28, 28)
    assert digit.dtype == np.uint8


@pytest.mark.real_data
@pytest.mark.parametrize("split", ["train", "t10k"])
def test_all_of_mnist_is_unchanged(split: str) -> None:
    archive = Path(os.environ.get("DATA_DIR", "")) / f"mnist/{split}-images-idx3-ubyte.gz"
    if not archive.is_file():
        pytest.skip("DATA_DIR holds no MNIST")
    with gzip.open(archive) as file:
        digits = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    assert all(np.array_equal(normalise(Image.fromarray(digit)), digit) for digit in digits)
