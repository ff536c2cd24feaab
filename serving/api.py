"""The routes and their JSON: images in, classes out; what is served; is it alive; how does it do.

Knows Flask and every module beside it. Views do HTTP and nothing else; ``predict`` is the one way
from uploads to an answer and knows no route.
"""

import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import Blueprint, Response, g, request
from numpy.typing import NDArray

from serving import images, metrics, openapi, uploads
from serving.api_edge import error_body, json_response
from serving.batcher import Batcher, Measure
from serving.errors import BadRequest, Draining, ServingError
from serving.model import Model
from serving.repository import Repository
from serving.settings import Settings

TOP = 5
PARAMETERS = frozenset({"coverage", "model", "top", "version"})


@dataclass(frozen=True)
class Service:
    """What the routes work with, one for each worker."""

    settings: Settings
    repository: Repository
    batcher: Batcher
    metrics: metrics.Metrics
    draining: threading.Event


def predict(
    service: Service,
    model: Model,
    files: Sequence[uploads.Upload],
    *,
    top: int,
    threshold: float | None = None,
    deadline: float,
) -> list[dict[str, Any]]:
    """One prediction for each upload, in their order; with ``threshold``, each has its set.

    Of several, a bad image fails alone: its place holds the error. A single one raises, however it
    was sent: as a file, as a form of one part or as a JSON list of one.
    """
    with _stages(service, model) as measure, service.batcher.images(len(files)):
        decoded = [
            _decode(service, model, upload, deadline=deadline, measure=measure) for upload in files
        ]
        if len(files) == 1 and isinstance(decoded[0], ServingError):
            raise decoded[0]
        pixels = [image for image in decoded if not isinstance(image, ServingError)]
        rows: list[list[float]] = []
        if pixels:
            batch = np.stack(pixels)
            rows = service.batcher.predict(
                model, batch, deadline=deadline, measure=measure
            ).tolist()
    answers = iter(rows)
    return [
        error_body(image, service.metrics)
        if isinstance(image, ServingError)
        else _prediction(service, model, next(answers), top=top, threshold=threshold)
        for image in decoded
    ]


@contextmanager
def _stages(service: Service, model: Model) -> Iterator[Measure]:
    """Count each stage of a request once, with the sum of what was measured for it."""
    spent: defaultdict[str, float] = defaultdict(float)

    def measure(stage: str, seconds: float) -> None:
        spent[stage] += seconds

    try:
        yield measure
    finally:
        for stage, seconds in spent.items():
            service.metrics.stage(model.name, model.version, stage=stage, seconds=seconds)


def _decode(
    service: Service, model: Model, upload: uploads.Upload, *, deadline: float, measure: Measure
) -> NDArray[np.uint8] | ServingError:
    if isinstance(upload, ServingError):
        return upload
    with service.batcher.decodes.turn("decode", deadline=deadline, measure=measure):
        try:
            return images.read(upload, model.spec, max_pixels=service.settings.max_pixels)
        except ServingError as exc:
            return exc


def _prediction(
    service: Service, model: Model, row: list[float], *, top: int, threshold: float | None
) -> dict[str, Any]:
    order = sorted(range(len(row)), key=row.__getitem__, reverse=True)
    best = [{"label": model.labels[i], "probability": round(row[i], 6)} for i in order[:top]]
    service.metrics.image(model.name, model.version, label=model.labels[order[0]])
    prediction = {**best[0], "top": best}
    if threshold is not None:
        prediction["set"] = [model.labels[i] for i in order if row[i] >= threshold]
    return prediction


def blueprint(service: Service) -> Blueprint:
    """The routes over one service."""
    routes = Blueprint("api", __name__)
    limits = uploads.Limits(service.settings.max_body_bytes, service.settings.max_images)
    described = openapi.document(service.settings)

    @routes.post("/predict/<name>")
    @routes.post("/predict")
    def post_predict(name: str | None = None) -> Response:
        deadline = _deadline(service.settings.timeout_ms)
        version, top, coverage = _number("version"), _number("top") or TOP, _coverage()
        _refuse_unknown_parameters()
        name = _agreed(name, request.args.get("model"))
        if name is not None:
            service.repository.get(name, version)
        with service.batcher.request():
            body = uploads.read(request, limits)
            model = service.repository.get(_named(_agreed(name, body.model), service), version)
            g.model = (model.name, model.version)
            threshold = None if coverage is None else _threshold(model, coverage)
            predictions = predict(
                service, model, body.uploads, top=top, threshold=threshold, deadline=deadline
            )
        return json_response(
            {"model": model.name, "version": model.version, "predictions": predictions}
        )

    @routes.get("/models")
    def get_models() -> Response:
        return json_response(
            {"models": [_model(service, each) for each in service.repository.names]}
        )

    @routes.get("/models/<name>")
    def get_model(name: str) -> Response:
        return json_response(_model(service, name))

    @routes.get("/healthz")
    def get_healthz() -> Response:
        return json_response({"status": "alive"})

    @routes.get("/readyz")
    def get_readyz() -> Response:
        # A worker takes no connection before all its models are loaded and tested.
        if service.draining.is_set():
            raise Draining("This replica is about to stop.")
        return json_response({"status": "ready"})

    @routes.get("/metrics")
    def get_metrics() -> Response:
        return Response(service.metrics.page(), content_type=metrics.CONTENT_TYPE)

    @routes.get("/openapi.json")
    def get_openapi() -> Response:
        return json_response(described)

    return routes


def _model(service: Service, name: str) -> dict[str, Any]:
    versions = service.repository.versions(name)
    return {
        "name": name,
        "default_version": versions[-1],
        "versions": [_version(service.repository.get(name, version)) for version in versions],
    }


def _version(model: Model) -> dict[str, Any]:
    spec = model.spec
    return {
        "version": model.version,
        "state": "ready",
        "labels": list(model.labels),
        "input": {
            "height": spec.height,
            "width": spec.width,
            "channels": spec.channels,
            "fit": spec.fit,
        },
        "provider": model.provider,
        **{key: value for key, value in model.about.items() if key != "baseline"},
    }


def _deadline(timeout_ms: int) -> float:
    """When to give up, as a ``time.monotonic()``; the client may only shorten it."""
    asked = request.headers.get("X-Request-Timeout-Ms")
    if asked is not None:
        timeout_ms = min(timeout_ms, _positive("the header X-Request-Timeout-Ms", asked))
    return float(g.began) + timeout_ms / 1000


def _number(name: str) -> int | None:
    text = request.args.get(name)
    return None if text is None else _positive(f"the parameter {name!r}", text)


def _coverage() -> float | None:
    text = request.args.get("coverage")
    if text is None:
        return None
    if not re.fullmatch(r"0?\.[0-9]{1,9}", text, re.ASCII):
        raise BadRequest(f"The parameter 'coverage' is {text[:40]!r}. Expected a share, like 0.95.")
    return float(text)


def _threshold(model: Model, coverage: float) -> float:
    """What puts a label into a set of that coverage, as calibrated when the model was published."""
    if coverage not in model.thresholds:
        known = ", ".join(f"{each:g}" for each in sorted(model.thresholds))
        raise BadRequest(
            f"{model} has no prediction sets of coverage {coverage:g}. Known coverages:"
            f" {known or 'none; it was published without thresholds'}."
        )
    return model.thresholds[coverage]


def _positive(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise BadRequest(
            f"{what[0].upper()}{what[1:]} is {text[:40]!r}. Expected a positive integer."
        )
    return int(text)


def _refuse_unknown_parameters() -> None:
    # A misspelt ?version= that is ignored would answer with another version.
    unknown = sorted(set(request.args) - PARAMETERS)
    if unknown:
        raise BadRequest(
            f"No parameter named {unknown[0]!r}. Known parameters: {', '.join(sorted(PARAMETERS))}."
        )


def _agreed(name: str | None, other: str | None) -> str | None:
    if name is not None and other is not None and name != other:
        raise BadRequest(f"The request names two models, {name!r} and {other!r}. Expected one.")
    return other if name is None else name


def _named(name: str | None, service: Service) -> str:
    if name is None:
        raise BadRequest(
            "No model is named. Expected /predict/<name>, ?model= or a form field 'model'."
            f" Known models: {', '.join(service.repository.names)}."
        )
    return name
