from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from tests.training import tiny
from training.data.splits import Split
from training.publishing import plots

LABELS = ("dark", "light")


def answers(test: Split, wrong: int) -> plots.Answers:
    """Return correct answers but for the first ``wrong`` images, wrong and surer with each."""
    right = np.eye(2, dtype=np.float32)[test.labels] * 0.8 + 0.1
    sure = np.linspace(0.55, 0.99, wrong, dtype=np.float32)
    for n in range(wrong):
        right[n, test.labels[n]] = 1 - sure[n]
        right[n, 1 - test.labels[n]] = sure[n]
    return right


@pytest.mark.parametrize(("wrong", "shown"), [(0, 0), (3, 3), (40, 16)])
def test_the_most_confident_mistakes_are_shown_as_pictures(wrong: int, shown: int) -> None:
    test = tiny.split(60, 1)
    figure = plots.mistakes(answers(test, wrong), test, LABELS)
    pictures = [axes for axes in figure.axes if axes.get_images()]
    assert len(pictures) == shown
    if pictures:
        np.testing.assert_array_equal(
            np.asarray(pictures[0].get_images()[0].get_array()), test.images[wrong - 1]
        )
        assert "99.0%" in pictures[0].get_title()


def heights(axes: Axes) -> list[list[float]]:
    return [np.asarray(line.get_ydata()).tolist() for line in axes.lines]


def test_the_learning_curves_show_training_and_validation() -> None:
    history = {"loss": [1.0, 0.5], "val_loss": [1.1, 0.7], "accuracy": [0.5, 0.7]}
    figure = plots.learning_curves({**history, "val_accuracy": [0.5, 0.6]})
    loss, accuracy = figure.axes
    assert heights(loss) == [[1.0, 0.5], [1.1, 0.7]]
    assert heights(accuracy) == [[0.5, 0.7], [0.5, 0.6]]


def test_the_reliability_diagrams_skip_empty_bins_and_show_the_errors() -> None:
    test = tiny.split(60, 1)
    sure = answers(test, 0)
    unsure = np.float32(0.5) + (sure - np.float32(0.5)) / np.float32(4)
    before, after = plots.reliability_diagrams(unsure, sure, test).axes
    for axes, confidence in ((before, 0.6), (after, 0.9)):
        points = axes.lines[-1]
        assert np.asarray(points.get_xdata()).tolist() == pytest.approx([confidence])
        assert np.asarray(points.get_ydata()).tolist() == [1.0]
    assert before.get_title() == "before temperature scaling: error 40.00%"
    assert after.get_title() == "after temperature scaling: error 10.00%"


def shown(axes: Axes) -> np.ndarray:
    return np.asarray(axes.get_images()[0].get_array())


def test_the_edge_kernels_detect_edges_of_their_direction() -> None:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[:, :, 4:] = 200  # left dark, right light: one vertical edge
    picture, vertical, horizontal = plots.edges(image).axes
    np.testing.assert_array_equal(shown(picture), image[0])
    assert shown(vertical).tolist() == [[0, 0, 600, 600, 0, 0]] * 6
    assert not shown(horizontal).any()


def test_a_kernel_slides_over_the_picture_as_a_convolution_layer_does() -> None:
    grey = np.arange(12.0).reshape(3, 4)
    kernel = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert plots.filtered(grey, kernel).tolist() == [[10, 13, 16], [22, 25, 28]]


@pytest.mark.parametrize(("channels", "columns"), [(3, 4), (20, 9)])
def test_the_feature_maps_that_vary_most_are_shown_beside_their_image(
    channels: int, columns: int
) -> None:
    images = tiny.split(2, 1).images
    maps = np.random.default_rng(1).random((2, 5, 5, channels), np.float32)
    maps[..., 1] *= 9
    axes = plots.feature_maps(images, maps).axes
    assert len(axes) == 2 * columns
    assert axes[1].get_title() == "map 1"
    np.testing.assert_array_equal(shown(axes[columns]), images[1])
    np.testing.assert_array_equal(shown(axes[columns + 1]), maps[1, ..., 1])


def test_a_saved_picture_is_a_small_png_that_is_not_empty(tmp_path: Path) -> None:
    plots.save(plots.edges(tiny.split(4, 1).images), tmp_path / "edges.png")
    with Image.open(tmp_path / "edges.png") as picture:
        assert (picture.format, picture.mode) == ("PNG", "P")
        assert picture.size == (384, 512)
        assert len(picture.getcolors() or []) > 10
    assert (tmp_path / "edges.png").stat().st_size < 50_000
