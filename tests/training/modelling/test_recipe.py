import importlib
import inspect
import sys
from pathlib import Path

import pytest

from tests.training import tiny


def test_a_fingerprint_ignores_docstrings_comments_and_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = inspect.getsource(importlib.import_module("training.recipes.digits_adadelta"))
    assert "Measured" in page
    pages = {
        "same": page,
        "documented": page.replace("Measured", "Once measured").replace('    """', '    """Now '),
        "moved": page.replace("import keras\n", "import keras  # the library\nimport training\n"),
        "changed": page.replace("Dropout(0.25)", "Dropout(0.3)"),
    }
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in pages.items():
        (tmp_path / f"page_{name}.py").write_text(text)
    same, documented, moved, changed = (
        importlib.import_module(f"page_{name}").RECIPE.fingerprint() for name in pages
    )
    assert same == documented == moved != changed


def test_a_header_entry_is_one_line_up_to_the_next_word(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "Title.\n\nMeasured: 9 %:\n    a command\nPublished: 8 %,\nloss 1.\nOdd: no.\n\nMore."
    monkeypatch.setattr(sys.modules[tiny.__name__], "__doc__", page)
    assert tiny.RECIPE.header("Measured") == "9 %: a command"
    assert tiny.RECIPE.header("Published") == "8 %, loss 1."
    assert tiny.RECIPE.header("Odd") == "no."
    assert tiny.RECIPE.header("Difference") == ""
