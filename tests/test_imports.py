"""Imports point one way, read from the source.

Training and serving never import each other; each foreign library has the few modules that know it.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Which modules of serving know which library, and which of its siblings each may import.
KNOWS = {
    "flask": {"api", "api_edge", "app", "front"},
    "werkzeug": {"api_edge", "edge", "front", "uploads"},
    "onnxruntime": {"session"},
    "PIL": {"digit", "images"},
    "numpy": {
        *("batcher", "decoder", "digit", "golden", "images", "model", "openinference"),
        *("png", "predictor", "shadow", "tensors", "tune"),
    },
    "pyspng": {"png"},
    "prometheus_client": {"counts", "exposition", "metrics", "predicted", "scores"},
    "sqlalchemy": {"store"},
    "httptools": {"parser"},
    "multipart": {"uploads"},
    "gunicorn": {"worker", "gunicorn.conf"},
}
SIBLINGS = {
    "__init__": set(),
    "errors": set(),
    "quota": set(),
    "settings": {"quota"},
    "counts": set(),
    "predicted": set(),
    "metrics": {"counts", "exposition", "predicted", "run"},
    "digit": set(),
    "images": {"digit", "errors", "png"},
    "png": set(),
    "uploads": {"errors"},
    "schemas": {"errors"},
    "openapi_protocols": {"errors", "openinference", "schemas", "tfserving"},
    "openapi": {
        *("errors", "openapi_feedback", "openapi_protocols", "routing", "schemas", "settings"),
    },
    "session": {"errors", "settings"},
    "model": {"errors", "images", "session"},
    "admission": {"errors"},
    "batcher": {"errors", "model"},
    "routing": {"errors"},
    "versions": {"errors", "routing"},
    "peers": set(),
    "repository": {"errors", "images", "model", "quota", "routing", "session", "versions"},
    "reloader": {
        *("metrics", "model", "peers", "repository"),
        *("routing", "session", "settings", "versions"),
    },
    "shadow": {"admission", "batcher", "errors", "images", "metrics", "model", "repository"},
    "call": {"errors", "model", "routing"},
    "decoder": {"batcher", "errors", "images", "tensors"},
    "predictor": {
        *("admission", "batcher", "call", "decoder", "errors", "images", "metrics", "model"),
        *("repository", "settings", "shadow", "tensors", "uploads"),
    },
    "predictions": {
        *("call", "errors", "metrics", "model", "predictor", "tensors", "uploads"),
    },
    "judgement": set(),
    "labels": set(),
    "ids": {"errors"},
    "kept": {"images"},
    "store": {"errors", "judgement", "labels", "settings"},
    "recorder": {"errors", "labels", "store"},
    "exposition": set(),
    "scores": {"__init__", "errors", "judgement", "labels", "model"},
    "labelling": {
        *("ids", "kept", "metrics", "model", "predictor", "recorder", "scores", "settings"),
        *("store", "tensors"),
    },
    "feedback": {"call", "errors", "ids", "labels", "metrics", "predictor", "recorder"},
    "quality": {"judgement", "labels", "model", "predicted"},
    "golden": {"batcher", "errors", "images", "metrics", "model", "repository"},
    "exporting": {"errors", "kept", "labels", "settings", "store"},
    "openapi_feedback": {"errors", "feedback", "quality", "schemas"},
    "tensors": {"errors", "images", "uploads"},
    "openinference": {"call", "errors", "images", "model", "tensors", "uploads"},
    "tfserving": {"errors", "images", "model", "tensors", "uploads"},
    "routes": {
        *("call", "edge", "exposition", "feedback", "message", "openinference"),
        *("predictions", "predictor", "tfserving"),
    },
    "access": set(),
    "edge": {"access", "errors", "metrics", "model"},
    "api_edge": {"edge", "errors", "metrics", "uploads"},
    "loop": set(),
    "api": {
        *("api_edge", "errors", "reloader", "loop", "metrics", "model", "openapi"),
        *("call", "predictions", "predictor", "repository", "routes", "settings", "uploads"),
        *("feedback", "golden", "labelling", "quality"),
    },
    "app": {
        *("admission", "api", "api_edge", "batcher", "errors", "reloader"),
        *("golden", "labelling", "loop", "metrics", "peers", "predictor", "repository"),
        *("run", "settings"),
    },
    "message": {"errors"},
    "parser": {"errors", "message"},
    "server": {"http", "message"},
    "http": {"errors", "message", "parser", "server"},
    "front": {"api", "call", "edge", "errors", "message", "routes"},
    "listeners": {"settings"},
    "shares": set(),
    "accepting": {"http", "listeners", "server", "shares"},
    "worker": {
        *("accepting", "access", "api", "app", "errors"),
        *("front", "listeners", "server", "settings", "shares"),
    },
    "gunicorn.conf": {"counts", "peers", "run", "settings", "worker"},
    "run": set(),
    "tune": {"errors", "model", "quota", "session", "settings", "versions"},
    "start": {"run"},
    "__main__": {
        *("errors", "exporting", "listeners", "model", "repository", "session", "settings"),
        *("start", "store", "tune"),
    },
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
