"""Imports point one way between folders, and each foreign library is known in few places."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# In order: a folder (or a module beside folders) imports itself and what stands above it here.
FLOORS = {
    "serving": [
        *("serving", "serving.errors", "serving.cpus", "serving.settings", "serving.monitoring"),
        *("serving.inference.images", "serving.inference.models", "serving.inference"),
        *("serving.feedback", "serving.api", "serving.app.openapi", "serving.app"),
        *("serving.server.http", "serving.server", "serving.__main__"),
    ],
    "training": [
        *("training", "training.errors", "training.lock", "training.data", "training.modelling"),
        *("training.recipes", "training.evaluation.corruptions", "training.evaluation"),
        *("training.fitting", "training.publishing"),
        *("training.commands", "training.__main__"),
    ],
    "convserve": ["convserve"],  # starts both halves by name, imports neither
    "bench": [
        *("bench", "bench.rig", "bench.reporting", "bench.clients", "bench.throughput.peers"),
        *("bench.throughput", "bench.robustness", "bench.accuracy"),
    ],
}
# Beyond the order: these folders import nothing of their package but what is named.
ALONE = {
    "serving.inference.images": {"serving.errors"},
    "serving.server.http": {"serving.errors"},
    "bench.accuracy": {"bench.rig", "bench.reporting", "bench.clients"},
    "bench.robustness": {"bench.rig", "bench.reporting", "bench.clients"},
}
# Which folders or modules know which library; no other imports it.
KNOWN_BY = {
    "flask": ["serving.app"],
    "werkzeug": ["serving.app", "serving.server.dispatch"],
    "onnxruntime": [
        "serving.inference.models.session",
        "training.evaluation",
        "training.publishing",
    ],
    "PIL": [
        *("serving.inference.images", "training.data.pixels", "training.publishing"),
        "training.evaluation.corruptions.digital",
    ],
    "pyspng": ["serving.inference.images"],
    "prometheus_client": ["serving.monitoring", "serving.feedback.collector"],
    "sqlalchemy": ["serving.feedback.database"],
    "httptools": ["serving.server.http.parser"],
    "multipart": ["serving.api.body"],
    "gunicorn": ["serving.server"],
    "tensorflow": ["training.modelling.batch_norm", "training.publishing.to_onnx"],
    "tf2onnx": ["training.publishing.to_onnx"],
    "jax": ["training.fitting.distributed"],
}


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Return every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in names if name in MODULES}
            found |= modules | ({node.module} if len(modules) < len(names) else set())
    return found


def within(name: str, places: list[str]) -> str | None:
    """Return the innermost of ``places`` that holds the module ``name``."""
    held = [each for each in places if name == each or name.startswith(f"{each}.")]
    return max(held, key=len, default=None)


PATHS = [path for half in FLOORS for path in sorted((ROOT / half).rglob("*.py"))]
MODULES = {module(path) for path in PATHS}


@pytest.mark.parametrize("path", PATHS, ids=module)
def test_a_folder_imports_what_stands_before_it(path: Path) -> None:
    name = module(path)
    half = name.partition(".")[0]
    floors = FLOORS[half]
    own = within(name, floors)
    assert own
    for other in imported(path):
        foreign = other.partition(".")[0] in FLOORS.keys() - {half}
        assert not foreign or (half == "bench" and other in MODULES), f"{name} imports {other}"
        place = within(other, floors)
        assert not place or floors.index(place) <= floors.index(own), f"{name} imports {other}"
        if own in ALONE:
            assert not place or place in {half, own, *ALONE[own]}, f"{name} imports {other}"


@pytest.mark.parametrize(
    "path", [each for each in PATHS if not module(each).startswith("bench")], ids=module
)
def test_a_library_is_known_in_one_place(path: Path) -> None:
    known = {name.partition(".")[0] for name in imported(path)} & KNOWN_BY.keys()
    for library in known:
        assert within(module(path), KNOWN_BY[library]), f"{module(path)} imports {library}"


@pytest.mark.parametrize("half", FLOORS)
def test_modules_import_each_other_in_no_circle(half: str) -> None:
    arrows = {
        module(path): imported(path) & MODULES
        for path in PATHS
        if module(path).partition(".")[0] == half
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " → ".join([*above[above.index(name) :], name])
        if name not in done:
            for other in arrows.get(name, ()):
                visit(other, (*above, name))
            done.add(name)

    for name in arrows:
        visit(name, ())
