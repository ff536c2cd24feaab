"""What every test folder shares."""

import os
import re
from pathlib import Path

import pytest


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes and text without escapes, and by their last 50 characters.

    mutmut selects tests by their ids in a process that has collected before, and pytest would
    escape an id for the second time there.
    """
    text = val.decode("latin-1") if isinstance(val, bytes) else val
    return re.sub(r"[^ -~]|\\", ".", text[-50:]) if isinstance(text, str) else None


@pytest.fixture(scope="session")
def real_dir() -> Path:
    """Return the folder of the real archives; skip the test without it."""
    if not os.environ.get("DATA_DIR"):
        pytest.skip("needs the real archives: DATA_DIR is not set")
    return Path(os.environ["DATA_DIR"])
