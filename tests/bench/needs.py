"""Mark tests that need programs which are not Python packages."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.rig.environment import program


def needs(*programs: str) -> Callable[[Any], Any]:
    """Mark a test as a system test, and skip it where a program is missing."""
    missing = [name for name in programs if program(name) is None]
    skip = pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")
    return lambda test: pytest.mark.system(skip(test))
