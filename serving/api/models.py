"""``GET /models``: the versions that are served, their routing, and their quality.

Knows the repository and the labels; knows no server and no framework.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from serving.api.exchange import Exchange, positive, query_parameters
from serving.feedback import quality
from serving.feedback.database import Database
from serving.inference.models.model import Model
from serving.inference.models.reloader import Reloader
from serving.inference.models.repository import Repository
from serving.monitoring.metrics import Metrics


class Models:
    """The handlers of ``/models``. Each reads files or the database: call them in a thread."""

    def __init__(self, reloader: Reloader, database: Database, metrics: Metrics) -> None:
        self._reloader, self._database, self._metrics = reloader, database, metrics

    def every(self, _: Exchange) -> dict[str, Any]:
        """Return all models, what is refused outside them, and the states of all workers."""
        served = self._reloader.repository
        return {
            "models": [self._model(served, name) for name in served.names],
            "refused": self._refused(lambda name: name not in served.names),
            "workers": self._reloader.workers.states(),
        }

    def one(self, exchange: Exchange) -> dict[str, Any]:
        """Return one model, or raise UnknownModel."""
        return self._model(self._reloader.repository, exchange.names["name"])

    def quality(self, exchange: Exchange) -> dict[str, Any]:
        """Return the accuracy and drift of one model, from its newest labels.

        Raises:
            BadRequest: a parameter is unknown or malformed.
            FeedbackUnavailable: the database is away.
            UnknownModel: no model has this name.
        """
        name, served = exchange.names["name"], self._reloader.repository
        models = [served.get(name, version) for version in served.versions(name)]
        given = query_parameters(exchange.query, frozenset({"labels"}))
        newest = positive(
            "The parameter 'labels'", given.get("labels", str(quality.DEFAULT_LABELS))
        )
        found = quality.quality(
            models,
            self._database.newest(name, min(newest, quality.MAX_LABELS)),
            self._metrics.predictions(name),
            self._database.count_written(name, since=self._metrics.since),
        )
        return {"model": name, **found}

    def _model(self, served: Repository, name: str) -> dict[str, Any]:
        versions, rule = served.versions(name), served.rule(name)
        parts = {"canary": rule.canary, "shadow": rule.shadow}
        return {
            "name": name,
            "default_version": served.default(name),
            "version_labels": dict(rule.labels),
            **{kind: asdict(part) for kind, part in parts.items() if part is not None},
            "versions": [_version(served.get(name, version)) for version in versions],
            "refused": self._refused(lambda other: other == name),
        }

    def _refused(self, selects: Callable[[str], bool]) -> dict[str, str]:
        """Return the reasons of refusal by path, where the name of the model is selected."""
        refused = self._reloader.refused.items()
        return {path: reason for path, reason in refused if selects(path.partition("/")[0])}


def _version(model: Model) -> dict[str, Any]:
    return {
        "version": model.version,
        "state": "ready",
        "labels": list(model.labels),
        "input": asdict(model.spec),
        "provider": model.provider,
        "precision": model.precision,
        **{key: value for key, value in model.about.items() if key != "baseline"},
    }
