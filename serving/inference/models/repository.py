"""The versions that are served, how requests are routed among them, and the step to the next state.

Every version is loaded and tested before it serves. Whatever is broken is refused, and everything
else continues. Knows nothing of HTTP.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from serving.cpus import cores
from serving.errors import ModelError, ServingError, UnknownModel, UnknownVersion
from serving.inference.images.pixels import read
from serving.inference.models import routing
from serving.inference.models.model import Model, load_precisions
from serving.inference.models.published import (
    Fingerprint,
    Published,
    check_links,
    check_sums,
    golden_images,
    golden_label,
    scan,
)
from serving.inference.models.routing import NO_RULE, Routing
from serving.settings import Settings

logger = logging.getLogger(__name__)

Models = Mapping[str, Mapping[int, Model]]


class Repository:
    """The loaded models, ``name -> version -> Model``, and their routing; immutable."""

    def __init__(self, models: Models, rules: Routing | None = None) -> None:
        """``rules`` name no other version than these."""
        self.models, self.routing = models, rules or {}

    def __iter__(self) -> Iterator[Model]:
        """Yield every version of every model, by name, then by version."""
        for name in self.names:
            for version in sorted(self.models[name]):
                yield self.models[name][version]

    @property
    def names(self) -> list[str]:
        """The names of the models, sorted."""
        return sorted(self.models)

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model, sorted; raise UnknownModel if there is no such model."""
        if name not in self.models:
            raise UnknownModel(f"No model named {name!r}. Known models: {', '.join(self.names)}.")
        return sorted(self.models[name])

    def rule(self, name: str) -> routing.Rule:
        """Return the routing of a model."""
        return self.routing.get(name, NO_RULE)

    def default(self, name: str) -> int:
        """Return the version that answers requests that name none: the routing's, or the highest.
        Raises what ``versions`` raises."""
        return self.rule(name).default or self.versions(name)[-1]

    def get(
        self, name: str, version: int | str | None = None, *, request_id: str | None = None
    ) -> Model:
        """Return a version of a model, by number or label; without ``version``, the canary if the
        request falls into its share, or the default.

        Raises:
            UnknownModel, UnknownVersion: if no model has this name, or the model no such version.
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
        """Return the version that also predicts what ``model`` answers; None for most requests."""
        part = self.rule(model.name).shadow
        if part is None or part.version == model.version or not part.holds(request_id, "shadow"):
            return None
        return self.models[model.name][part.version]


@dataclass(frozen=True)
class Snapshot:
    """The served versions, the files they were loaded from, and what was refused."""

    repository: Repository = field(default_factory=lambda: Repository({}))
    versions: Mapping[str, Fingerprint] = field(default_factory=dict)  # by "<name>/<version>"
    refused: Mapping[str, str] = field(default_factory=dict)  # by path in the folder: the reason


Load = Callable[[str, Fingerprint], Model]  # of "<name>/<version>"; raises ModelError


def update(
    before: Snapshot, published: Published, load: Load, *, retry: bool = False
) -> Snapshot:
    """Return the snapshot after ``before``, given what is published now.

    A version is loaded if its files have changed, or with ``retry`` if it was refused. If a version
    or the routing is refused, its predecessor stays in force. A version whose folder is gone is
    retired, unless the routing names it.
    """
    refused = dict(published.errors)
    models: dict[str, dict[int, Model]] = {}
    versions = {key: files for key, files in before.versions.items() if published.may_hide(key)}
    versions |= published.versions
    for key, files in versions.items():
        name, _, number = key.partition("/")
        version = int(number)
        model = before.repository.models.get(name, {}).get(version)
        if before.versions.get(key) != files or (retry and key in before.refused):
            try:
                model = load(key, files)
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
            reason = f"The folder of {model} is gone, but the routing names it"
            refused[f"{model.name}/{model.version}"] = f"{reason}: it is served from memory."
    # The routing that other workers accepted may name a version that this one could not load.
    rules = {
        name: rule for name, rule in rules.items() if rule.versions <= models.get(name, {}).keys()
    }
    return Snapshot(Repository(models, rules), versions, refused)


def _rules(
    before: Snapshot, published: Published, models: Models, refused: dict[str, str]
) -> Routing:
    """Return the published routing, or the one in force if that is refused."""
    if routing.FILE not in refused:
        try:
            rules = routing.parse(published.routing)
            routing.check(rules, models)
        except ModelError as exc:
            refused[routing.FILE] = str(exc)
        else:
            return rules
    return before.repository.routing


def load(settings: Settings) -> Repository:
    """Load everything that is published in ``settings.models``, on all processors; raise
    ModelError if nothing is published there, or something is broken."""
    published = scan(settings.models)
    with ThreadPoolExecutor(cores()) as pool:
        loading = {
            key: pool.submit(load_version, settings.models / key, settings)
            for key in published.versions
        }
        snapshot = update(Snapshot(), published, lambda key, _: loading[key].result())
    if snapshot.refused:
        raise ModelError(" ".join(snapshot.refused.values()))
    return snapshot.repository


def load_version(
    folder: Path, settings: Settings, *, agree: Callable[[str], str] = str
) -> Model:
    """Check, load, warm up and self-test the version in ``folder``: each file that may serve.

    ``agree`` maps the precision that is best here to the one that all workers use. Raises
    ModelError if the version is broken; the message says how.
    """
    try:
        check_links(folder, folder.parent.parent)
        check_sums(folder)
        models = load_precisions(folder, settings)
        for model in models:
            self_test(model, folder, max_pixels=settings.max_pixels)
    except OSError as exc:
        raise ModelError(f"{exc.filename} cannot be read: {exc.strerror}.") from exc
    chosen = models[0]
    if len(models) > 1:
        precision = agree(chosen.precision)
        chosen = next(model for model in models if model.precision == precision)
    if chosen.missing_device:
        logger.warning("%s", chosen.missing_device)
    return chosen


def self_test(model: Model, folder: Path, *, max_pixels: int) -> None:
    """Predict every golden image of the version in ``folder``; raise ModelError if there is none,
    or one is unreadable, unlabelled or missed.

    Training picks images that the exported file classified right: a single miss means another pixel
    policy, another runtime or a damaged file.
    """
    paths = golden_images(folder)
    if not paths:
        raise ModelError(f"{folder / 'golden'} holds no image. Expected files <label>-<n>.png.")
    for path in paths:
        expected = golden_label(path)
        if expected not in model.labels:
            raise ModelError(f"{path} names no label of {model}. Known: {', '.join(model.labels)}.")
        try:
            pixels = read(path.read_bytes(), model.spec, max_pixels=max_pixels)
        except (OSError, ServingError) as exc:
            raise ModelError(f"The golden image {path} cannot be read: {exc}") from exc
        # One by one: onnxruntime keeps the memory of its largest batch.
        label = model.labels[int(model.predict(pixels[None]).argmax())]
        if label != expected:
            raise ModelError(f"{model} predicts {label!r} for the golden image {path}.")
