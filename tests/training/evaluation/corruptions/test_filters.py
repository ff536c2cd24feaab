import numpy as np
import pytest

from training.evaluation.corruptions import blur, filters, weather
from training.evaluation.corruptions.draws import Draws, Floats


def impulse(side: int = 21) -> Floats:
    x = np.zeros((1, side, side, 1), np.float32)
    x[0, side // 2, side // 2] = 1
    return x


def test_a_blur_of_a_point_is_a_gaussian() -> None:
    out = filters.gaussian(impulse(), 1.5)[0, :, :, 0]
    steps = np.arange(-6, 7)
    line = np.exp(-0.5 * (steps / 1.5) ** 2)
    line /= line.sum()
    np.testing.assert_allclose(out[4:17, 4:17], np.outer(line, line), atol=1e-6)


@pytest.mark.parametrize("border", ["edge", "reflect", "mirror", "zero"])
def test_a_blur_keeps_a_grey_image(border: filters.Border) -> None:
    grey = np.full((1, 9, 9, 3), 0.5, np.float32)
    np.testing.assert_allclose(filters.gaussian(grey, 2, border=border), grey, atol=1e-6)


@pytest.mark.parametrize(
    ("border", "indices"),
    [
        ("edge", [0, 0, 0, 1, 2, 3, 3, 3]),
        ("reflect", [1, 0, 0, 1, 2, 3, 3, 2]),
        ("mirror", [2, 1, 0, 1, 2, 3, 2, 1]),
    ],
)
def test_what_is_outside_is_read_inside(border: filters.Border, indices: list[int]) -> None:
    assert filters.fold(np.arange(-2, 6), 4, border).tolist() == indices


def test_a_disk_has_all_pixels_within_its_radius() -> None:
    kernel = filters.disk(1, 0.1)
    assert np.count_nonzero(kernel) == 5
    assert kernel.sum() == pytest.approx(1)
    assert np.count_nonzero(filters.disk(0.3, 0.4)) == 9  # one pixel, softened


def test_a_sample_is_bilinear_and_black_outside() -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    rows, columns = np.array([[[0.5, 3.5, -1.0]]]), np.array([[[0.25, 1.0, 0.0]]])
    out = filters.sample(x, rows, columns, "zero")[0, 0, :, 0]
    assert out.tolist() == [2.25, 6.5, 0.0]


def test_a_zoom_keeps_the_middle_and_the_size() -> None:
    x = np.arange(32, dtype=np.float32)[None, :, None, None] * np.ones((1, 1, 32, 1), np.float32)
    out = filters.zoomed(x, 2.0)
    assert out.shape == x.shape
    np.testing.assert_allclose(out[0, [0, -1], 0, 0], [8, 23], atol=1e-5)
    np.testing.assert_array_equal(filters.zoomed(x, 1.0), x)


def test_a_streak_is_half_a_gaussian_in_its_direction() -> None:
    out = blur.streak(impulse(), 10, 2, np.array([0.0], np.float32))[0, :, :, 0]
    weights = np.exp(-(np.arange(21.0) ** 2) / 8)
    np.testing.assert_allclose(out[10, 10::-1], (weights / weights.sum())[:11], atol=1e-5)
    assert np.count_nonzero(out[:, 11:]) == 0
    down = blur.streak(impulse(), 10, 2, np.array([-90.0], np.float32))[0, :, :, 0]
    np.testing.assert_allclose(down[10:, 10], out[10, 10::-1])


def test_glass_moves_colours_by_copies_and_grey_by_exchanges() -> None:
    place = np.arange(144, dtype=np.float32).reshape(1, 12, 12, 1)
    draws = Draws("glass", 1, first=0, count=1)
    grey = blur._displaced(place, draws, 2, 3)
    assert sorted(grey.ravel()) == sorted(place.ravel())
    colour = blur._displaced(np.repeat(place, 3, axis=3), draws, 1, 1)[0, :, :, 0]
    rows, columns = np.divmod(np.arange(144).reshape(12, 12) - colour, 12)
    assert set(rows.ravel()) <= {0, 1}
    assert set(columns.ravel()) <= {0, 1}


def test_clouds_tile_and_fill_their_range() -> None:
    cloud = weather.plasma(Draws("fog", 1, first=0, count=3), 32, 2.0)
    assert cloud.shape == (3, 32, 32)
    np.testing.assert_array_equal(cloud.min(axis=(1, 2)), 0)
    np.testing.assert_array_equal(cloud.max(axis=(1, 2)), 1)
    inside = np.abs(np.diff(cloud, axis=1)).mean()
    assert np.abs(cloud[:, 0] - cloud[:, -1]).mean() < 3 * inside
