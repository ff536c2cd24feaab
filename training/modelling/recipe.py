"""What a recipe is: one frozen page that says how a network is built and trained, and what it must
reach.

A page's header is data too: it says what was ``Measured:``, and of a tutorial's network what was
``Published:`` and the ``Difference:`` between the two.

Knows where recipes live (``training/recipes/<name>.py``, each with one ``RECIPE``); knows nothing
of any particular one, nor of how training runs.
"""

import ast
import hashlib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training import recipes
from training.errors import UsageError

Tensor = Any  # a keras.KerasTensor; Keras ships no types


def no_augmentation() -> list[Any]:
    """Train on the images as they are."""
    return []


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make one model.

    ``network(image, classes)`` takes uint8 ``(N, H, W, C)`` and returns float32 logits ``(N,
    classes)``; scaling is part of it. A network that learns by mean squared error gives one score
    ``(N, 1)`` instead, 0 for the first of two classes and 1 for the second: it can be reproduced,
    but not published. ``optimizer(steps)`` makes the optimiser for a run of that
    many steps. ``augment()`` makes Keras layers that map pixels 0-255 to pixels 0-255; they run
    on the device while training and are not exported. ``prepare(network, images)`` sets first
    weights that depend on the training images.
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
    augment: Callable[[], list[Any]] = no_augmentation
    prepare: Callable[[Any, NDArray[np.uint8]], None] | None = None
    epochs: int
    batch_size: int
    loss: Literal["cross_entropy", "mean_squared_error"] = "cross_entropy"
    label_smoothing: float = 0.0
    min_accuracy: float  # of the exported file on the test split; below it nothing is published
    # training and validation images that a tutorial took of the whole set
    published_split: tuple[int, int] | None = None
    any_size: bool = False  # the network takes crops of another size than the served image
    recommended: bool = False  # the one that `train <model>` runs

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return *self.size, self.channels

    @property
    def gives_classes(self) -> bool:
        """Whether the network gives a logit for each class, as a published file must."""
        return self.loss == "cross_entropy"

    def outputs(self, classes: int) -> int:
        """How many numbers the network gives for an image."""
        return classes if self.gives_classes else 1

    def header(self, word: str) -> str:
        """What the page's header says after that word and a colon, on one line; empty where it does
        not have it."""
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
        values = [  # what is left at its default says nothing, so that fields can be added
            (each.name, value)
            for each in fields(self)
            if not callable(value := getattr(self, each.name)) and value != each.default
        ]
        return hashlib.sha256(f"{ast.unparse(page)}{values}".encode()).hexdigest()[:16]


def names() -> list[str]:
    """Every recipe, sorted: the modules of ``training.recipes``."""
    return sorted(module.name for module in pkgutil.iter_modules(recipes.__path__))


def find(name: str) -> Recipe:
    """The recipe of that name, or the recommended one of the model of that name.

    Raises:
        UsageError: there is neither.
    """
    if name in names():
        return _load(name)
    recommended = {each.model: each for each in map(_load, names()) if each.recommended}
    if name in recommended:
        return recommended[name]
    raise UsageError(
        f"No recipe or model named {name!r}. Known recipes: {', '.join(names())}; "
        f"models: {', '.join(recommended)}."
    )


def _load(name: str) -> Recipe:
    recipe: Recipe = importlib.import_module(f"{recipes.__name__}.{name}").RECIPE
    return recipe
