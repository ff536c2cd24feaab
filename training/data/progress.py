"""Progress of a long job: a bar on a terminal, a log line every ten seconds elsewhere.

Knows nothing of what the job is.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_LINE_EVERY = 10.0  # seconds, where stderr is not a terminal
logger = logging.getLogger(__name__)


@contextmanager
def progress(
    what: str, total: int | None, *, unit: str, done: int = 0
) -> Iterator[Callable[[int], None]]:
    """Show the progress of a job of ``total`` units, if known; call the result to count units."""
    next_line = time.monotonic() + _LINE_EVERY

    def advance(count: int) -> None:
        nonlocal done, next_line
        done += count
        bar.update(count)
        if bar.disable and time.monotonic() >= next_line:
            next_line = time.monotonic() + _LINE_EVERY
            of = f" of {total:,}" if total else ""
            logger.info("%s: %s%s %s", what, f"{done:,}", of, unit)

    with tqdm(  # `disable=None`: no bar unless stderr is a terminal
        desc=what, total=total, initial=done, unit=unit, unit_scale=unit == "B", disable=None
    ) as bar:
        yield advance
