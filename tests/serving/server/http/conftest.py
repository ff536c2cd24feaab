"""The bare engine as fixtures."""

from collections.abc import Iterator

import pytest

from serving.server.http import connection
from tests.serving.server.http.engine import Engine, running


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Run an engine with its own time limits, and a keep-alive timeout of a minute."""
    with running(keep_alive=60.0) as started:
        yield started


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Run an engine whose time limits are short, for tests that wait for them."""
    monkeypatch.setattr(connection, "READ_SECONDS", 0.3)
    monkeypatch.setattr(connection, "WRITE_SECONDS", 0.3)
    with running(keep_alive=0.6) as started:
        yield started
