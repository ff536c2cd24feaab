"""Fixtures for commands that run inside the test process."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.reporting.promises import ACCURACY, PAGE


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """Restore the handler that `require` replaces."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return Path(shutil.copy(PAGE, tmp_path))


@pytest.fixture
def accuracy_page(tmp_path: Path) -> Path:
    return Path(shutil.copy(ACCURACY, tmp_path))
