import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.corruptions import sets
from training.evaluation.corruptions.sets import Kind

ALL = {"mnist": sets.MNIST, "cifar10": sets.CIFAR10, "pets": sets.pets(48)}
CASES = [(name, kind) for name, kinds in ALL.items() for kind in kinds]
# These change an image through its content, not by noise that a severity makes stronger.
NOT_ORDERED = {"glass_blur", "elastic_transform"}


def pictures(kinds: str, count: int = 5) -> NDArray[np.uint8]:
    """Return a bright frame on noise that grows from left to right."""
    side, channels = {"mnist": (28, 1), "cifar10": (32, 3), "pets": (48, 3)}[kinds]
    rng = np.random.default_rng(3)
    images = rng.integers(20, 90, (count, side, side, channels), dtype=np.uint8)
    images += np.linspace(0, 60, side, dtype=np.uint8)[:, None]
    images[:, 8:20, 8:20] += 90
    images[:, 11:17, 11:17] = 30
    return images


@pytest.mark.parametrize(("kinds", "kind"), CASES, ids=lambda each: getattr(each, "name", each))
def test_a_corruption_depends_on_the_seed_and_not_on_the_batch(kinds: str, kind: Kind) -> None:
    images, severity = pictures(kinds), len(kind.levels)
    whole = kind.apply(images, severity)
    assert whole.shape == images.shape
    assert whole.dtype == np.uint8
    assert not np.array_equal(whole, images)
    parts = [kind.apply(images[a:b], severity, first=a) for a, b in ((0, 1), (1, 4), (4, 5))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    ("kinds", "kind"),
    [each for each in CASES if len(each[1].levels) > 1 and each[1].name not in NOT_ORDERED],
    ids=lambda each: getattr(each, "name", each),
)
def test_the_highest_severity_changes_more_than_the_lowest(kinds: str, kind: Kind) -> None:
    images = pictures(kinds).astype(int)
    low, high = (
        np.abs(kind.apply(pictures(kinds), each) - images).mean() for each in (1, len(kind.levels))
    )
    assert high > low > 0


def test_the_benchmarks_have_the_published_kinds() -> None:
    assert len(sets.MNIST) == 15
    assert {kind.name for kind in sets.MNIST} > set(sets.GEOMETRY)
    for kinds in (sets.CIFAR10, sets.pets(128)):
        assert tuple(kind.name for kind in kinds) == sets.PHOTOGRAPHS
        assert [len(kind.levels) for kind in kinds] == [5] * 14
    assert sets.find("brightness", 8) is None


def test_lengths_of_photographs_grow_with_the_side() -> None:
    by_name = {side: {kind.name: kind.levels[4] for kind in sets.pets(side)} for side in (64, 128)}
    assert list(by_name[64]["defocus_blur"]) == [3, 0.1]
    assert list(by_name[128]["defocus_blur"]) == [6, 0.1]
    assert list(by_name[128]["glass_blur"]) == [1.8, 4, 2]
    assert by_name[128]["gaussian_noise"] == by_name[64]["gaussian_noise"] == (0.18,)


def of(kinds: tuple[Kind, ...], name: str) -> Kind:
    return next(kind for kind in kinds if kind.name == name)


def test_brightness_and_contrast_are_the_published_formulas() -> None:
    images = pictures("cifar10")
    x = images / 255
    value = x.max(axis=3, keepdims=True)
    brighter = x * np.minimum(value + 0.05, 1) / value
    np.testing.assert_array_equal(
        of(sets.CIFAR10, "brightness").apply(images, 1), (brighter * 255 + 1e-3).astype(np.uint8)
    )
    mean = x.mean(axis=(1, 2), keepdims=True)
    paler = (x - mean) * 0.75 + mean
    np.testing.assert_array_equal(
        of(sets.CIFAR10, "contrast").apply(images, 1), (paler * 255 + 1e-3).astype(np.uint8)
    )


def test_impulse_noise_replaces_its_share_by_black_and_white() -> None:
    grey = np.full((40, 28, 28, 1), 100, np.uint8)
    out = of(sets.MNIST, "impulse_noise").apply(grey, 1)
    assert np.mean(out == 0) == pytest.approx(0.085, abs=0.005)
    assert np.mean(out == 255) == pytest.approx(0.085, abs=0.005)
    assert set(np.unique(out)) == {0, 100, 255}


def test_gaussian_noise_has_its_standard_deviation() -> None:
    grey = np.full((40, 32, 32, 3), 128, np.uint8)
    out = of(sets.CIFAR10, "gaussian_noise").apply(grey, 5).astype(float)
    assert out.std() == pytest.approx(0.10 * 255, rel=0.02)


def test_shot_noise_has_the_variance_of_counts() -> None:
    grey = np.full((40, 32, 32, 3), 102, np.uint8)  # 0.4 of white
    out = of(sets.CIFAR10, "shot_noise").apply(grey, 1) / 255
    assert out.std() == pytest.approx((0.4 / 500) ** 0.5, rel=0.03)


def test_a_stripe_inverts_both_outer_quarters() -> None:
    images = pictures("mnist")
    out = of(sets.MNIST, "stripe").apply(images, 1)
    np.testing.assert_array_equal(out[:, :, :7], 255 - images[:, :, :7])
    np.testing.assert_array_equal(out[:, :, 21:], 255 - images[:, :, 21:])
    np.testing.assert_array_equal(out[:, :, 7:21], images[:, :, 7:21])


def test_a_translation_moves_whole_pixels_and_leaves_black() -> None:
    images = np.zeros((8, 28, 28, 1), np.uint8)
    images[:, 10, 12] = 200
    out = of(sets.MNIST, "translate").apply(images, 1)[..., 0]
    places = {(int(row), int(column)) for _, row, column in np.argwhere(out == 200)}
    assert places <= {(7, 9), (7, 15), (13, 9), (13, 15)}
    assert len(places) > 1
    assert np.count_nonzero(out) == 8


def test_canny_finds_the_outline_of_a_square() -> None:
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[:, 8:20, 8:20] = 255
    out = of(sets.MNIST, "canny_edges").apply(image, 1)[0, :, :, 0]
    assert set(np.unique(out)) == {0, 255}
    assert not out[11:17, 11:17].any()
    assert not out[:6].any()
    assert out[14, 6:10].any()
    assert out[14, 18:22].any()
    assert out[6:10, 14].any()
