"""The versions that are served and how requests are routed among them; from one such state, and
what is published now, to the next.

Knows the folders of ``models/README.md``; knows nothing of HTTP. Every published version is loaded
and proves itself before it serves. What is not as it should be is refused, and all else goes on.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from serving.inference.models import routing
from serving.errors import ModelError, ServingError, UnknownModel, UnknownVersion
from serving.inference.images.pixels import read
from serving.inference.models.model import Model
from serving.inference.models.model import load as load_model
from serving.cpus import cores
from serving.inference.models.routing import NO_RULE, Routing
from serving.inference.models.session import Options
from serving.inference.models.published import Published, check_sums, scan

logger = logging.getLogger(__name__)

Models = Mapping[str, Mapping[int, Model]]


class Repository:
    """The loaded models, ``name -> version -> Model``, and their routing. It never changes: a
    reload makes another."""

    def __init__(self, models: Models, rules: Routing | None = None) -> None:
        """``rules`` name no other version than these."""
        self.models, self.routing = models, rules or {}

    def __iter__(self) -> Iterator[Model]:
        """Every version of every model, by name, then by version."""
        for name in self.names:
            for version in sorted(self.models[name]):
                yield self.models[name][version]

    @property
    def names(self) -> list[str]:
        """The names of the models, sorted."""
        return sorted(self.models)

    def versions(self, name: str) -> list[int]:
        """The versions of a model, sorted.

        Raises:
            UnknownModel: no model has this name.
        """
        if name not in self.models:
            raise UnknownModel(f"No model named {name!r}. Known models: {', '.join(self.names)}.")
        return sorted(self.models[name])

    def rule(self, name: str) -> routing.Rule:
        """What the routing says of a model."""
        return self.routing.get(name, NO_RULE)

    def default(self, name: str) -> int:
        """The version that answers where none is asked for: the highest, or the routing's.

        Raises:
            UnknownModel: no model has this name.
        """
        return self.rule(name).default or self.versions(name)[-1]

    def get(
        self, name: str, version: int | str | None = None, *, request_id: str | None = None
    ) -> Model:
        """One version of a model, by number or label; where none is asked for, the default or, by
        the id of the request, the canary.

        Raises:
            UnknownModel: no model has this name.
            UnknownVersion: the model has no such version.
        """
        known, rule = self.versions(name), self.rule(name)
        wanted = rule.labels.get(version) if isinstance(version, str) else version
        if version is None:
            canary = rule.canary
            held = canary and request_id is not None and canary.holds(request_id, "canary")
            wanted = canary.version if canary and held else self.default(name)
        if wanted not in known:
            labels = ", ".join(sorted(rule.labels))
            raise UnknownVersion(
                f"Model {name!r} has no version {version!r}. Known versions:"
                f" {', '.join(map(str, known))}." + (f" Known labels: {labels}." if labels else "")
            )
        return self.models[name][wanted]

    def shadow(self, model: Model, request_id: str) -> Model | None:
        """The version that predicts, unseen, what this one has answered; None for most requests."""
        part = self.rule(model.name).shadow
        if part is None or part.version == model.version or not part.holds(request_id, "shadow"):
            return None
        return self.models[model.name][part.version]


@dataclass(frozen=True)
class State:
    """What is served, what was published when it was loaded, and what was refused then."""

    repository: Repository = field(default_factory=lambda: Repository({}))
    published: Published = field(default_factory=Published)
    refused: Mapping[str, str] = field(default_factory=dict)  # by path in the folder: the reason

    def forgetting(self) -> "State":
        """The same, but what was refused looks as if its files had changed since."""
        versions = self.published.versions.items()
        sound = {key: files for key, files in versions if key not in self.refused}
        return replace(self, published=replace(self.published, versions=sound))


Load = Callable[[str], Model]  # "<name>/<version>"; raises ModelError


def renewed(before: State, published: Published, load: Load) -> State:
    """The state after ``before``, given what is published now.

    A version is loaded where its files have changed. If it, or the routing, is refused, what was
    served in its place goes on. A version whose folder is gone goes, unless the routing names it.
    """
    refused = dict(published.wrong)
    models: dict[str, dict[int, Model]] = {}
    prints = before.published.versions
    found = {key: files for key, files in prints.items() if published.hides(key)}
    found |= published.versions
    for key, files in found.items():
        name, version = _parts(key)
        model = before.repository.models.get(name, {}).get(version)
        if prints.get(key) != files:
            try:
                model = load(key)
            except ModelError as exc:
                refused[key] = str(exc)
            except Exception as exc:
                logger.exception("bug", extra={"version": key})
                refused[key] = f"{key} cannot be loaded: {exc!r}."
        elif key in before.refused:
            refused[key] = before.refused[key]
        if model is not None:
            models.setdefault(name, {})[version] = model
    rules = _rules(before, published, models, refused)
    for model in before.repository:
        named = rules.get(model.name, NO_RULE).versions
        if model.version in named - models.get(model.name, {}).keys():
            models.setdefault(model.name, {})[model.version] = model
            refused[f"{model.name}/{model.version}"] = (
                f"The folder of {model} is gone, but the routing in force names it: it goes on."
            )
    # What a worker remembers from another may name what it could not load itself.
    rules = {
        name: rule for name, rule in rules.items() if rule.versions <= models.get(name, {}).keys()
    }
    return State(Repository(models, rules), replace(published, versions=found), refused)


def _rules(before: State, published: Published, models: Models, refused: dict[str, str]) -> Routing:
    """The routing that is published, or the one before where that is refused."""
    try:
        if routing.FILE in refused:
            return before.repository.routing
        found = routing.parse(published.routing)
        routing.check(found, models)
    except ModelError as exc:
        refused[routing.FILE] = str(exc)
        return before.repository.routing
    return found


def _parts(key: str) -> tuple[str, int]:
    name, _, version = key.partition("/")
    return name, int(version)


def load(
    folder: Path, *, options: Options | None = None, max_pixels: int = 50_000_000
) -> Repository:
    """Load all that is published in ``folder``, on all processors.

    Raises:
        ModelError: nothing is published there, or something is broken; the message says what.
    """

    def one(key: str) -> Model:
        return load_version(folder / key, options=options, max_pixels=max_pixels)

    published = scan(folder)
    with ThreadPoolExecutor(cores()) as pool:
        loading = {key: pool.submit(one, key) for key in published.versions}
        state = renewed(State(), published, lambda key: loading[key].result())
    if state.refused:
        raise ModelError(" ".join(state.refused.values()))
    return state.repository


def load_version(
    path: Path,
    *,
    options: Options | None = None,
    max_pixels: int = 50_000_000,
    agreed: Callable[[str], str] = str,
) -> Model:
    """Check, load, warm up and self-test the version in ``path``: each of its files that may serve.

    ``agreed`` is told the precision that is best here, and tells which one all workers take.

    Raises:
        ModelError: it is broken; the message says how.
    """
    name, version = _parts(f"{path.parent.name}/{path.name}")
    try:
        check_sums(path)
        found = load_model(path, name=name, version=version, options=options or Options())
        for model in found:
            self_test(model, path / "golden", max_pixels=max_pixels)
    except OSError as exc:
        raise ModelError(f"{exc.filename} cannot be read: {exc.strerror}.") from exc
    chosen = found[0]
    if len(found) > 1:
        precision = agreed(chosen.precision)
        chosen = next(model for model in found if model.precision == precision)
    if chosen.unmet:
        logger.warning("%s", chosen.unmet)
    return chosen


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
    for path in paths:
        expected = path.stem.rpartition("-")[0]
        if expected not in model.labels:
            raise ModelError(f"{path} names no label of {model}. Known: {', '.join(model.labels)}.")
        try:
            pixels = read(path.read_bytes(), model.spec, max_pixels=max_pixels)
        except (OSError, ServingError) as exc:
            raise ModelError(f"The golden image {path} cannot be read: {exc}") from exc
        # One by one: onnxruntime keeps the memory of its largest batch.
        got = model.labels[int(model.predict(pixels[None]).argmax())]
        if got != expected:
            raise ModelError(f"{model} takes the golden image {path} for {got!r}.")
