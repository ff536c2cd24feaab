"""Load the published versions and let each prove itself before it serves.

Knows the folders of ``models/README.md``; knows nothing of HTTP. Every published version is loaded;
the highest is the default. Anything that is not as it should be stops the start.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from serving.errors import InvalidImage, ModelError, UnknownModel, UnknownVersion
from serving.images import read
from serving.model import Model
from serving.versions import scan

logger = logging.getLogger(__name__)


class Repository:
    """The loaded models: ``name -> version -> Model``."""

    def __init__(self, models: Mapping[str, Mapping[int, Model]]) -> None:
        self._models = models

    def __iter__(self) -> Iterator[Model]:
        """Every version of every model, by name, then by version."""
        for name in self.names:
            for version in sorted(self._models[name]):
                yield self._models[name][version]

    @property
    def names(self) -> list[str]:
        """The names of the models, sorted."""
        return sorted(self._models)

    def versions(self, name: str) -> list[int]:
        """The versions of a model, the default last.

        Raises:
            UnknownModel: no model has this name.
        """
        if name not in self._models:
            raise UnknownModel(f"No model named {name!r}. Known models: {', '.join(self.names)}.")
        return sorted(self._models[name])

    def get(self, name: str, version: int | None = None) -> Model:
        """One version of a model; the highest unless another is asked for.

        Raises:
            UnknownModel: no model has this name.
            UnknownVersion: the model has no such version.
        """
        known = self.versions(name)
        wanted = known[-1] if version is None else version
        if wanted not in known:
            raise UnknownVersion(
                f"Model {name!r} has no version {wanted}."
                f" Known versions: {', '.join(map(str, known))}."
            )
        return self._models[name][wanted]


def load(folder: Path, *, intra_threads: int = 1, max_pixels: int = 50_000_000) -> Repository:
    """Load and self-test every version published in ``folder``.

    Raises:
        ModelError: nothing is published there, or a version is broken; the message says which.
    """
    models: dict[str, dict[int, Model]] = {}
    for path in scan(folder):
        name, version = path.parent.name, int(path.name)
        path = path.resolve()  # a message names the file that is broken, not a link to it
        model = Model(path / "model.onnx", name=name, version=version, intra_threads=intra_threads)
        self_test(model, path / "golden", max_pixels=max_pixels)
        models.setdefault(name, {})[version] = model
        logger.debug("loaded", extra={"model": name, "version": version})
    return Repository(models)


def self_test(model: Model, golden: Path, *, max_pixels: int) -> None:
    """Predict every golden image; all must reach the label in their file name.

    Training picks them among the images that the exported file classified right, and the arithmetic
    is the same here: a single miss means another pixel policy, another runtime or a damaged file.

    Raises:
        ModelError: there is no golden image, or one is unreadable, unlabelled or missed.
    """
    paths = sorted(golden.glob("*.png"))
    if not paths:
        raise ModelError(f"{golden} holds no image. Expected files named <label>-<n>.png.")
    pixels = []
    for path in paths:
        if path.stem.rpartition("-")[0] not in model.labels:
            raise ModelError(f"{path} names no label of {model}. Known: {', '.join(model.labels)}.")
        try:
            pixels.append(read(path.read_bytes(), model.spec, max_pixels=max_pixels))
        except (OSError, InvalidImage) as exc:
            raise ModelError(f"The golden image {path} cannot be read: {exc}") from exc
    for path, row in zip(paths, model.predict(np.stack(pixels)), strict=True):
        expected, got = path.stem.rpartition("-")[0], model.labels[int(row.argmax())]
        if got != expected:
            raise ModelError(f"{model} takes the golden image {path} for {got!r}.")
