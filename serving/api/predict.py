"""Our own protocol, ``/predict``: one or many images in any encoding, classes out.

Knows the JSON of its answers; knows no server and no framework.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from serving.api import body
from serving.api.body import Body
from serving.api.exchange import Answer, Exchange, encoded, positive, query_parameters
from serving.api.pipeline import Pipeline, Prediction
from serving.errors import BadRequest, ServingError
from serving.inference.models.model import Model
from serving.inference.models.routing import LABEL
from serving.monitoring.metrics import Metrics

PARAMETERS = frozenset({"coverage", "model", "top", "typical", "version"})
TOP = 5


@dataclass(frozen=True)
class Parameters:
    """The parameters of a prediction."""

    model: str | None
    version: int | str | None  # a number or a label
    top: int
    coverage: float | None
    typical: float | None  # the typicality below which an image is unusual


@lru_cache(maxsize=256)  # clients repeat their query strings
def parameters(query: str) -> Parameters:
    """Parse a query, or raise BadRequest: a parameter is unknown, repeated or malformed."""
    given = query_parameters(query, PARAMETERS)
    top = positive("The parameter 'top'", given["top"]) if "top" in given else TOP
    return Parameters(
        given.get("model"),
        _version(given.get("version")),
        top,
        _coverage(given.get("coverage")),
        _typical(given.get("typical")),
    )


def _version(text: str | None) -> int | str | None:
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return positive("The parameter 'version'", text)
    if not LABEL.fullmatch(text):
        raise BadRequest(
            f"The parameter 'version' is {text[:40]!r}. Expected a positive integer or a label."
        )
    return text


def _coverage(text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"0?\.[0-9]{1,9}", text, re.ASCII):
        raise BadRequest(f"The parameter 'coverage' is {text[:40]!r}. Expected a share, like 0.95.")
    return float(text)


def _typical(text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"0?\.[0-9]{1,9}|0|1(\.0{1,9})?", text, re.ASCII):
        raise BadRequest(f"The parameter 'typical' is {text[:40]!r}. Expected a share, like 0.01.")
    return float(text)


async def answer(exchange: Exchange, *, pipeline: Pipeline, metrics: Metrics) -> Answer:
    """Return the predictions of a request; one unreadable image among several is an error in its
    place.

    Raises:
        ServingError: any error of the tree, but for UnknownPath and MethodNotAllowed.
    """
    asked = parameters(exchange.query)
    named = agreed(exchange.names.get("name"), asked.model)
    # A version that is retired while the body arrives still answers.
    early = None if named is None else _model(pipeline, named, asked.version, exchange)

    async def respond(given: Body, deadline: float) -> Answer:
        name = agreed(named, given.model)
        model = early or _model(pipeline, name, asked.version, exchange)
        exchange.model = model.name, model.version
        threshold = None if asked.coverage is None else _threshold(model, asked.coverage)
        if asked.typical is not None and not model.typical:
            raise BadRequest(f"{model} has no typicality. It was published without.")
        shadow = pipeline.shadow(model, exchange) if asked.version is None else None
        predictions = await pipeline.infer(
            model, given.uploads, deadline=deadline, shadow=shadow, tolerant=True
        )
        listed = []
        for each in predictions:
            if isinstance(each, ServingError):
                metrics.error(each.code)
                listed.append(each.body)
            else:
                listed.append(_prediction(model.labels, each, asked, threshold))
        found = {"model": model.name, "version": model.version, "predictions": listed}
        return Answer(200, encoded(found))

    kind = exchange.header("content-type") or ""
    parse = partial(body.parse, content_type=kind, limits=pipeline.intake.limits)
    return await pipeline.intake.run(exchange, parse, respond)


def _model(
    pipeline: Pipeline, name: str | None, version: int | str | None, exchange: Exchange
) -> Model:
    repository = pipeline.reloader.repository
    if name is None:
        raise BadRequest(
            "No model is named. Expected /predict/<name>, ?model= or a form field 'model'."
            f" Known models: {', '.join(repository.names)}."
        )
    return repository.get(name, version, request_id=exchange.id)


def agreed(name: str | None, other: str | None) -> str | None:
    """Return the one model that two places of a request name, or raise BadRequest for two."""
    if name is not None and other is not None and name != other:
        raise BadRequest(f"The request names two models, {name!r} and {other!r}. Expected one.")
    return other if name is None else name


def _prediction(
    labels: Sequence[str], found: Prediction, asked: Parameters, threshold: float | None
) -> dict[str, Any]:
    row = found.row
    order = sorted(range(len(row)), key=row.__getitem__, reverse=True)
    prediction: dict[str, Any] = {
        "label": found.label,
        "probability": round(found.confidence, 6),
        "top": [{"label": labels[i], "probability": round(row[i], 6)} for i in order[: asked.top]],
    }
    if threshold is not None:
        prediction["set"] = [labels[i] for i in order if row[i] >= threshold]
    if found.typicality is not None:
        prediction["typicality"] = round(found.typicality, 4)
        if asked.typical is not None and found.typicality < asked.typical:
            prediction["unusual"] = True
    prediction["id"] = found.id
    return prediction


def _threshold(model: Model, coverage: float) -> float:
    """Return the calibrated probability from which a label belongs to the prediction set."""
    if coverage not in model.thresholds:
        known = ", ".join(f"{each:g}" for each in sorted(model.thresholds))
        raise BadRequest(
            f"{model} has no prediction sets of coverage {coverage:g}. Known coverages:"
            f" {known or 'none; it was published without thresholds'}."
        )
    return model.thresholds[coverage]
