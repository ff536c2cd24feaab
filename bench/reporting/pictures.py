"""Figures of matplotlib that are drawn without a screen and saved as PNG."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def picture(to: Path, rows: int, columns: int, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a figure and its axes; save the figure at the end."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(rows, columns, layout="constrained", **options)
    yield figure, axes
    figure.savefig(to, dpi=110)
    plt.close(figure)
