"""A recipe: one frozen page that says how to build and train a network, and its accuracy gate.

The header of a page is data too: ``Measured:`` is what training reached, and for a tutorial's
network ``Published:`` is the figure of the tutorial and ``Difference:`` explains the gap.

Knows nothing of any particular recipe, nor of how training runs.
"""

import ast
import hashlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Tensor = Any  # a keras.KerasTensor; Keras ships no types


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Instructions for making one model.

    ``network(image, classes)`` maps uint8 ``(N, H, W, C)`` to float32 logits ``(N, classes)``;
    scaling is part of it. A network trained by mean squared error returns one score ``(N, 1)``
    instead, 0 for the first of two classes and 1 for the second: it can be reproduced, but not
    published. ``optimizer(steps)`` makes the optimiser for a run of that many steps. ``augment()``
    makes Keras layers that map pixels 0-255 to pixels 0-255; they run on the device during training
    and are not exported. ``prepare(network, images)`` sets initial weights that depend on the
    training images. ``outliers`` names kinds of ``training.data.outliers``: ``outlier_share`` as
    many as there are training images are added, and the target of each is the uniform distribution.
    """

    name: str
    title: str
    model: str  # the served model that it publishes
    dataset: str
    fit: str  # the pixel policy, see models/README.md
    size: tuple[int, int]  # height and width of the input, in pixels
    channels: int
    network: Callable[[Tensor, int], Tensor]
    optimizer: Callable[[int], Any]
    augment: Callable[[], list[Any]] = list  # none: train on the images as they are
    prepare: Callable[[Any, NDArray[np.uint8]], None] | None = None
    epochs: int
    batch_size: int
    loss: Literal["cross_entropy", "mean_squared_error"] = "cross_entropy"
    label_smoothing: float = 0.0
    outliers: tuple[str, ...] = ()
    outlier_share: float = 0.1
    min_accuracy: float  # the gate: least test accuracy of the exported file
    # number of training and validation images that a tutorial used, if not all
    published_split: tuple[int, int] | None = None
    leaves_out: bool = False  # trains and validates without `data.pets.unanswerable`
    any_size: bool = False  # the network accepts crops of another size than the served image
    recommended: bool = False  # the recipe that `train <model>` runs

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return *self.size, self.channels

    @property
    def gives_classes(self) -> bool:
        """True if the network returns a logit for each class, as a published file must."""
        return self.loss == "cross_entropy"

    def outputs(self, classes: int) -> int:
        """Return how many numbers the network computes for an image."""
        return classes if self.gives_classes else 1

    def header(self, word: str) -> str:
        """Return the text after ``word:`` in the page's header, on one line, or an empty string."""
        text = inspect.getdoc(sys.modules[self.network.__module__]) or ""
        said = re.search(rf"^{word}: (.+?)(?=\n\n|\n[A-Z]\w+: |\Z)", text, re.DOTALL | re.MULTILINE)
        return " ".join(said[1].split()) if said else ""

    def fingerprint(self) -> str:
        """Return a hash of the recipe's code and values, not of imports, docstrings and comments.

        A run is resumed only under the code that it began with; moving or documenting a page does
        not change what it trains.
        """
        page = ast.parse(inspect.getsource(sys.modules[self.network.__module__]))
        page.body = [
            each for each in page.body if not isinstance(each, ast.Import | ast.ImportFrom)
        ]
        for each in ast.walk(page):
            if isinstance(each, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(
                each
            ):
                del each.body[0]
        values = [  # fields at their default are left out, so that fields can be added
            (each.name, value)
            for each in fields(self)
            if not callable(value := getattr(self, each.name)) and value != each.default
        ]
        return hashlib.sha256(f"{ast.unparse(page)}{values}".encode()).hexdigest()[:16]
