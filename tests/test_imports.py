"""Imports point one way, read from the source.

Training and serving never import each other; each foreign library has the few modules that know it.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Which modules of serving know which library, and which of its siblings each may import.
KNOWS = {
    "flask": {"api", "api_edge", "app"},
    "werkzeug": {"api_edge", "uploads"},
    "onnxruntime": {"model"},
    "PIL": {"digit", "images"},
    "numpy": {"api", "batcher", "digit", "images", "model", "repository"},
    "prometheus_client": {"metrics", "gunicorn.conf"},
    "gunicorn": {"worker", "gunicorn.conf"},
}
SIBLINGS = {
    "__init__": set(),
    "errors": set(),
    "settings": set(),
    "metrics": set(),
    "digit": set(),
    "images": {"digit", "errors"},
    "uploads": {"errors"},
    "openapi": {"errors", "settings"},
    "model": {"errors", "images"},
    "batcher": {"errors", "model"},
    "repository": {"errors", "images", "model", "versions"},
    "api_edge": {"errors", "metrics", "uploads"},
    "api": {
        *("api_edge", "batcher", "errors", "images", "metrics", "model"),
        *("openapi", "repository", "settings", "uploads"),
    },
    "app": {"api", "api_edge", "batcher", "metrics", "repository", "settings", "uploads"},
    "versions": {"errors"},
    "listeners": set(),
    "worker": {"api", "app", "errors", "listeners", "settings"},
    "gunicorn.conf": {"settings", "versions", "worker"},
    "__main__": {"errors", "repository", "settings", "versions"},
}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


SERVING = sorted((ROOT / "serving").glob("*.py"))
TRAINING = sorted((ROOT / "training").rglob("*.py"))


@pytest.mark.parametrize("path", SERVING, ids=lambda path: path.stem)
def test_a_module_of_serving_imports_what_it_may_know(path: Path) -> None:
    assert packages(path).isdisjoint({"training", "keras", "tensorflow", "onnx"})
    for library in KNOWS.keys() & packages(path):
        assert path.stem in KNOWS[library], f"{path.stem} must not know {library}"
    siblings = {name.split(".")[1] for name in imported(path) if name.startswith("serving.")}
    assert siblings & SIBLINGS.keys() <= SIBLINGS[path.stem]


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_training_imports_no_serving_and_tensorflow_in_export_alone(path: Path) -> None:
    assert "serving" not in packages(path)
    assert path.stem == "export" or packages(path).isdisjoint({"tensorflow", "tf2onnx"})


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_jax_is_known_to_one_module(path: Path) -> None:
    assert path.stem == "parallel" or "jax" not in packages(path)
