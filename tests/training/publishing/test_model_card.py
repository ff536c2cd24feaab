from dataclasses import replace
from typing import Any

import numpy as np

from tests.training import tiny
from training.publishing import model_card

PROPERTIES: dict[str, Any] = {
    "title": "Dark or light",
    "name": "brightness",
    "version": "3",
    "recipe": "tiny",
    "metrics": {"accuracy": 0.7, "correct": 7, "images": 10, "calibration_error": 0.2},
    "conformal": {"0.9": 0.3, "0.95": 0.2, "0.99": 0.0},
    "dataset": {"split": {"train": 130, "validation": 64, "test": 10}},
    "trained_at": "2026-01-01T00:00:00+00:00",
    "source": {
        "at": "2025-12-31T00:00:00+00:00",
        "revision": "abc",
        "code": "12",
        "command": "a command",
        "versions": {"keras": "3"},
        "exported": {
            "at": "2026-01-02T00:00:00+00:00",
            "revision": "",
            "code": "34",
            "versions": {"onnx": "1", "python": "3.11"},
        },
    },
}
DATA = replace(tiny.dataset(), test=tiny.split(10, 1))


def evidence(wrong: int) -> model_card.Evidence:
    """Return answers that are 90 % sure and correct, but 80 % sure and wrong for the first."""
    right = np.eye(2, dtype=np.float32)[DATA.test.labels] * 0.8 + 0.1
    right[:wrong] = 0.2 + 0.6 * (right[:wrong] < 0.5)
    return model_card.Evidence(
        history={}, before=right, answers=right, examples=DATA.test.images[:4], maps=None
    )


def card(seen: model_card.Evidence, **facts: str) -> str:
    return model_card.card(PROPERTIES, facts, DATA, seen, pictures=["edges"])


def test_the_confusion_matrix_counts_truth_by_answer() -> None:
    counts = model_card.confusion(evidence(3).answers, DATA.test, 2)
    assert counts.tolist() == [[3, 2], [1, 4]]


def test_the_card_has_precision_recall_and_f1_of_each_class() -> None:
    lines = card(evidence(3)).splitlines()
    assert "| dark | 5 | 75.00% | 60.00% | 66.67% |" in lines
    assert "| light | 5 | 66.67% | 80.00% | 72.73% |" in lines


def test_the_card_has_the_code_of_training_and_of_export() -> None:
    lines = card(evidence(0)).splitlines()
    span = "2025-12-31T00:00:00+00:00 to 2026-01-01T00:00:00+00:00"
    assert f"| Trained | {span}, revision `abc`, code `12`, keras 3 |" in lines
    exported = "2026-01-02T00:00:00+00:00, revision unknown, code `34`, onnx 1, python 3.11"
    assert f"| Exported | {exported} |" in lines


def test_the_card_has_the_statistics_of_the_prediction_sets() -> None:
    lines = card(evidence(3)).splitlines()
    assert "| 90% | 70.00% | 1.00 | 100.00% | 0.00% |" in lines
    assert "| 99% | 100.00% | 2.00 | 0.00% | 0.00% |" in lines


def test_the_card_has_the_results_on_corrupted_images() -> None:
    held = {"benchmark": "A set", "seed": 1, "images": 10, "accuracy": 0.6, "kinds": {"fog": [0.6]}}
    properties = {**PROPERTIES, "corrupted": held}
    text = model_card.card(properties, {}, DATA, evidence(3), pictures=[])
    assert "## On corrupted images\n\n**60.00%**, the mean of 1 kinds of corruption" in text
    assert "| fog | 60.00% |" in text
    assert "corrupted images" not in card(evidence(3))


def test_the_card_has_the_confidence_interval_and_the_measurements() -> None:
    text = card(evidence(3), **{"Cost of an image": "5 ms"})
    assert "(7; 95% confidence: 39.68% to 89.22%)" in text
    assert "| Calibration error | 31.00% before temperature scaling, 20.00% after |" in text
    assert "| Cost of an image | 5 ms |" in text
    assert "![edges](report/edges.png)" in text
