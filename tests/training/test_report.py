import numpy as np
import pytest
from matplotlib.axes import Axes

from tests.training import tiny
from training import report
from training.splits import Split

LABELS = ("dark", "light")


def answers(test: Split, wrong: int) -> report.Answers:
    """Right and sure on all but the first images, wrong and ever surer on those."""
    right = np.eye(2, dtype=np.float32)[test.labels] * 0.8 + 0.1
    sure = np.linspace(0.55, 0.99, wrong, dtype=np.float32)
    for n in range(wrong):
        right[n, test.labels[n]] = 1 - sure[n]
        right[n, 1 - test.labels[n]] = sure[n]
    return right


def test_the_confusion_matrix_counts_truth_by_answer() -> None:
    counts = report.confusion(answers(tiny.split(10, 1), 3), tiny.split(10, 1), 2)
    assert counts.tolist() == [[3, 2], [1, 4]]


@pytest.mark.parametrize(("wrong", "shown"), [(0, 0), (3, 3), (40, 16)])
def test_the_most_confident_mistakes_are_shown_as_pictures(wrong: int, shown: int) -> None:
    test = tiny.split(60, 1)
    figure = report.mistakes(answers(test, wrong), test, LABELS)
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
    figure = report.learning_curves({**history, "val_accuracy": [0.5, 0.6]})
    loss, accuracy = figure.axes
    assert heights(loss) == [[1.0, 0.5], [1.1, 0.7]]
    assert heights(accuracy) == [[0.5, 0.7], [0.5, 0.6]]


def test_the_reliability_diagram_leaves_empty_bins_out() -> None:
    test = tiny.split(60, 1)
    (axes,) = report.reliability_diagram(answers(test, 0), test).axes
    points = axes.lines[-1]
    assert np.asarray(points.get_xdata()).tolist() == pytest.approx([0.9])
    assert np.asarray(points.get_ydata()).tolist() == [1.0]
