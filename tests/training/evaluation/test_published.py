import json
from pathlib import Path

import onnx
import pytest

from tests.serving.samples import publish
from training.errors import UsageError
from training.evaluation.published import Version, find

CARD = """# Dark or light

| | |
| --- | --- |
| Epochs | 3, the best was number 2 |
| Training time | 5 minutes |

Some words.

| Class | Test images | Recall |
| --- | ---: | ---: |
| dark | 5 | 60.00% |
| light | 5 | 80.00% |
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Publish versions 1, 2 and 10 of ``shade``, with a card."""
    for version in (1, 2, 10):
        folder = publish(
            tmp_path,
            version=version,
            metadata={"dataset": json.dumps({"name": "mnist", "hash": "abc"})},
        )
        (folder / "README.md").write_text(CARD)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "version"), [("shade", 10), ("shade/2", 2), ("{}/shade/1", 1), ("{}/shade/1/", 1)]
)
def test_a_version_is_found_by_name_or_by_folder(models: Path, text: str, version: int) -> None:
    found = find(text.format(models), models)
    assert str(found) == f"shade {version}"
    assert found.metadata["labels"] == ["dark", "light"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat", r"Nothing is published in .*/cat"),
        ("shade/3", r"No version 3 in .*/shade. Known versions: \[1, 2, 10\]."),
        ("shade/new", "A version is a positive integer, not 'new'"),
        ("shade/0", "A version is a positive integer, not '0'"),
        ("shade/²", "A version is a positive integer, not '²'"),
    ],
)
def test_a_missing_version_is_reported(models: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find(text, models)


def test_the_card_is_read_back(models: Path) -> None:
    version = find("shade", models)
    assert version.fact("Training time") == "5 minutes"
    assert version.fact("Weights") == ""
    assert version.of_classes("Recall") == {"dark": "60.00%", "light": "80.00%"}
    assert version.of_classes("F1") == {}


def test_a_version_without_a_card_has_no_facts(models: Path) -> None:
    (models / "shade/1/README.md").unlink()
    version = find("shade/1", models)
    assert version.fact("Epochs") == ""
    assert version.of_classes("Recall") == {}


@pytest.mark.parametrize("content", [b"", b"not a graph"])
def test_a_file_that_is_not_a_version_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UsageError, match=r"model\.onnx (is not readable|has no metadata)"):
        str(Version(tmp_path))


def test_a_file_without_results_is_refused(models: Path) -> None:
    file = models / "shade/1/model.onnx"
    graph = onnx.load(file)
    onnx.helper.set_model_props(graph, {"name": "shade", "version": "1", "title": "Shade"})
    onnx.save(graph, file)
    with pytest.raises(UsageError, match="has no metadata for: dataset, labels, metrics"):
        str(find("shade/1", models))
