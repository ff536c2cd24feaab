"""What every test folder shares."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_dir() -> Path:
    """Return the folder of the real archives; skip the test without it."""
    if not os.environ.get("DATA_DIR"):
        pytest.skip("needs the real archives: DATA_DIR is not set")
    return Path(os.environ["DATA_DIR"])
