"""Our own protocol, ``/predict``: a body of one or many images in any shape, classes out.

Knows the JSON of its answers; knows no server and no framework. Of many images a bad one fails
alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

from serving.api import body as uploads
from serving.api.context import Call, parameters
from serving.api.pipeline import Predictor
from serving.errors import BadRequest, ServingError
from serving.inference.images.decoder import Image
from serving.inference.models.model import Model
from serving.monitoring.metrics import Metrics

Ids = Callable[[Model, Sequence[Image], Sequence[Sequence[float]]], list[str]]


class Predictions:
    """Answers the calls of ``/predict``."""

    def __init__(self, predictor: Predictor, ids: Ids, metrics: Metrics) -> None:
        """``ids`` gives one for each image and its probabilities."""
        self._predictor, self._ids, self._metrics = predictor, ids, metrics

    async def answer(self, call: Call) -> dict[str, Any]:
        """The JSON of an answer.

        Raises:
            ServingError: any of the tree, but for UnknownPath and MethodNotAllowed.
        """
        predictor, serves = self._predictor, self._predictor.serves
        deadline, asked = predictor.deadline(call), parameters(call.query)
        name, model = agreed(call.names.get("name"), asked.model), None
        if name is not None:  # taken now, it answers even if it is retired before the body has come
            model = serves().get(name, asked.version, request_id=call.request_id)
        data = await predictor.body(call, deadline)
        with predictor.admission.request(len(data)):
            kind = call.header("content-type") or ""
            body = await predictor.parsed(data, deadline, uploads.parse, kind, predictor.limits)
            name = self._named(agreed(name, body.model))
            model = model or serves().get(name, asked.version, request_id=call.request_id)
            call.used(model)
            threshold = None if asked.coverage is None else _threshold(model, asked.coverage)
            shadow = None
            if asked.version is None:
                shadow = serves().shadow(model, call.request_id)
            rows = await predictor.each(model, body.uploads, deadline=deadline, shadow=shadow)
        sound = [
            (file, row)
            for file, row in zip(body.uploads, rows, strict=True)
            if not isinstance(row, ServingError)
        ]
        told = iter(self._ids(model, [file for file, _ in sound], [row for _, row in sound]))
        predictions = [
            self._failed(row)
            if isinstance(row, ServingError)
            else _prediction(model.labels, row, asked.top, threshold) | {"id": next(told)}
            for row in rows
        ]
        return {"model": model.name, "version": model.version, "predictions": predictions}

    def _failed(self, error: ServingError) -> dict[str, Any]:
        self._metrics.error(error.code)
        return error.body

    def _named(self, name: str | None) -> str:
        if name is None:
            raise BadRequest(
                "No model is named. Expected /predict/<name>, ?model= or a form field 'model'."
                f" Known models: {', '.join(self._predictor.serves().names)}."
            )
        return name


def agreed(name: str | None, other: str | None) -> str | None:
    """The one model that two places of a request name.

    Raises:
        BadRequest: they name two.
    """
    if name is not None and other is not None and name != other:
        raise BadRequest(f"The request names two models, {name!r} and {other!r}. Expected one.")
    return other if name is None else name


def _prediction(
    labels: Sequence[str], row: Sequence[float], top: int, threshold: float | None
) -> dict[str, Any]:
    order = sorted(range(len(row)), key=row.__getitem__, reverse=True)
    listed = [{"label": labels[i], "probability": round(row[i], 6)} for i in order[:top]]
    prediction = {**listed[0], "top": listed}
    if threshold is not None:
        prediction["set"] = [labels[i] for i in order if row[i] >= threshold]
    return prediction


def _threshold(model: Model, coverage: float) -> float:
    """What puts a label into a set of that coverage, as calibrated when the model was published."""
    if coverage not in model.thresholds:
        known = ", ".join(f"{each:g}" for each in sorted(model.thresholds))
        raise BadRequest(
            f"{model} has no prediction sets of coverage {coverage:g}. Known coverages:"
            f" {known or 'none; it was published without thresholds'}."
        )
    return model.thresholds[coverage]
