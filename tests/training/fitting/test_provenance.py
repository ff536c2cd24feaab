import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from training.fitting import provenance


def test_a_source_has_time_revision_code_and_versions() -> None:
    source = provenance.source("jax", ("keras", "onnx"))
    assert source["at"] <= provenance.now()
    assert len(source["code"]) == 16
    assert source["versions"].keys() == {"python", "keras", "onnx", "jax", "jaxlib"}
    assert source["versions"]["keras"] == version("keras")


def test_the_revision_of_a_container_image_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_REVISION", "v1.2.3")
    assert provenance.revision() == "v1.2.3"


def asked(package: Path, what: str) -> str:
    """Ask a copy of the package, in a process of its own."""
    code = f"from training.fitting import provenance; print(provenance.{what}())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the package."""
    monkeypatch.delenv("SOURCE_REVISION", raising=False)
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(provenance.PACKAGE, tmp_path / "training", ignore=ignored))


def test_the_hash_of_the_code_depends_on_every_source_file(copy: Path) -> None:
    before = asked(copy, "code")
    assert before == provenance.code()
    page = copy / "modelling" / "schedules.py"
    page.write_bytes(page.read_bytes() + b"\n")
    edited = asked(copy, "code")
    page.rename(page.with_name("other.py"))
    (copy / "modelling" / "__pycache__").mkdir(exist_ok=True)
    assert len({before, edited, asked(copy, "code")}) == 3


def test_the_revision_is_that_of_the_commit_and_marks_a_changed_tree(copy: Path) -> None:
    assert asked(copy, "revision") == ""  # no git here
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(copy)]
    (copy / ".gitignore").write_text("__pycache__\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert asked(copy, "revision") == head.stdout[:12]
    (copy / "lock.py").write_text((copy / "lock.py").read_text() + "# edited\n")
    assert asked(copy, "revision") == f"{head.stdout[:12]}-dirty"


def test_a_difference_names_code_and_versions() -> None:
    one = {"at": "", "revision": "a", "code": "12", "versions": {"keras": "3.1", "jax": "0.1"}}
    assert provenance.difference(one, one | {"revision": "b"}) == ""
    other = {**one, "code": "34", "versions": {"keras": "3.2", "tensorflow": "2.0"}}
    assert provenance.difference(one, other) == (
        "code 12, now 34, keras 3.1, now 3.2, jax 0.1, now none, tensorflow none, now 2.0"
    )
