"""Recipes, one page each: the file name is the registry.

May import errors and modelling.
"""

import importlib
import pkgutil

from training.errors import UsageError
from training.modelling.recipe import Recipe


def names() -> list[str]:
    """Return the name of every recipe, sorted: the modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> Recipe:
    """Return the recipe of that name, else the recommended recipe of the model of that name; raise
    ``UsageError`` if neither exists."""
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
    recipe: Recipe = importlib.import_module(f"{__name__}.{name}").RECIPE
    return recipe
