"""Judge an exported file: what it answers on the test split, how sure it may be, how long it takes.

Knows which figures a version tells of itself; knows nothing of Keras or of how the file came to be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.datasets import Dataset
from training.evaluation import calibration, cost
from training.evaluation.scoring import Score, probabilities, score


@dataclass(frozen=True)
class Judgement:
    """What a file reached."""

    score: Score
    calibration_error: float
    answers: NDArray[np.float32]  # probabilities (N, K), in the order of the test split
    thresholds: dict[float, float]  # of the prediction sets, by coverage, from validation data
    milliseconds: float  # of one image at one thread of this machine

    @property
    def told(self) -> str:
        """Accuracy, calibration error and time, in words."""
        return (
            f"{self.score}, calibration error {self.calibration_error:.2%}, "
            f"{self.milliseconds:.2f} ms an image"
        )

    def metadata(self, labels: Sequence[str]) -> dict[str, Any]:
        """The part of the file's metadata that tells what it reached."""
        return {
            "metrics": {
                "accuracy": round(self.score.accuracy, 6),
                "correct": self.score.correct,
                "images": self.score.images,
                "calibration_error": round(self.calibration_error, 6),
            },
            "baseline": calibration.baseline(self.answers, labels),
            "conformal": {f"{coverage:g}": value for coverage, value in self.thresholds.items()},
        }


def judge(file: Path, data: Dataset) -> Judgement:
    """Let a file answer the test split and, for the thresholds, the validation split."""
    answers = probabilities(file, data.test.images)
    held_out = probabilities(file, data.validation.images)
    return Judgement(
        score=score(answers, data.test.labels),
        calibration_error=calibration.calibration_error(answers, data.test.labels),
        answers=answers,
        thresholds=calibration.thresholds(held_out, data.validation.labels),
        milliseconds=cost.milliseconds(file),
    )
