"""Tell how far a long job is: a bar on a terminal, now and then a log line elsewhere.

Knows nothing of what the job is.
"""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

_LINE_EVERY = 10.0  # seconds, where there is no terminal
logger = logging.getLogger(__name__)


class Progress:
    """Counts ``unit``s of a job, up to ``total`` if that is known; use it in a ``with``."""

    def __init__(self, what: str, total: int | None, *, unit: str, done: int = 0) -> None:
        terminal = sys.stderr.isatty()
        self._what, self._total, self._unit, self._done = what, total, unit, done
        self._next_line = None if terminal else time.monotonic() + _LINE_EVERY
        self._bar = tqdm(
            desc=what,
            total=total,
            initial=done,
            unit=unit,
            unit_scale=unit == "B",
            disable=not terminal,
        )

    def advance(self, count: int) -> None:
        """Count ``count`` more."""
        self._done += count
        self._bar.update(count)
        if self._next_line is not None and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY
            of = f" of {self._total:,}" if self._total else ""
            logger.info("%s: %s%s %s", self._what, f"{self._done:,}", of, self._unit)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
