"""``POST /feedback``: the true labels of predictions, one or many, each judged and kept once.

Knows ids, the writer and the JSON of both sides; knows no server and no database.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from serving.api.context import Call
from serving.api.pipeline import Predictor
from serving.errors import (
    BadRequest,
    ConflictingFeedback,
    RequestTooLarge,
    ServingError,
    UnknownLabel,
)
from serving.feedback.ids import Prediction, Signer
from serving.feedback.labels import Label
from serving.feedback.writer import Writer
from serving.monitoring.metrics import Metrics

MOST = 1000  # labels of one request
COMMAS = 8 * MOST  # an item has three, and a label may hold some
TOGETHER = 200  # labels that are judged in one step of the loop
SOURCES = ("user", "audit", "gold")
KEYS = {"id", "label", "source"}


@dataclass(frozen=True)
class Given:
    """A label as it was sent, and the prediction that it is for."""

    signed: Prediction
    label: str
    source: str

    def row(self, now: float) -> Label:
        """As it is kept."""
        made = self.signed
        return Label(
            made.key,
            made.model,
            made.version,
            made.label,
            made.confidence,
            self.label,
            self.source,
            made.at,
            now,
        )

    def told(self, status: str) -> dict[str, Any]:
        """The JSON of an answer."""
        return {
            "status": status,
            "correct": self.label == self.signed.label,
            "model": self.signed.model,
            "version": self.signed.version,
            "predicted": self.signed.label,
            "label": self.label,
        }


class Feedback:
    """Answers the calls of ``/feedback``."""

    def __init__(
        self, predictor: Predictor, signer: Signer, writer: Writer, metrics: Metrics
    ) -> None:
        self._predictor, self._signer = predictor, signer
        self._writer, self._metrics = writer, metrics

    async def answer(self, call: Call) -> dict[str, Any]:
        """The JSON of an answer: of one label, or of each in a list, in its place.

        Raises:
            ServingError: of the whole request or, where it holds one label alone, of that.
        """
        deadline = self._predictor.deadline(call)
        try:
            data = await self._predictor.body(call, deadline)
            with self._predictor.admission.request(len(data)):
                body = await self._predictor.parsed(data, deadline, _parsed)
                several = isinstance(body, list)
                given = await self._judged(body if isinstance(body, list) else [body])
        except ServingError as exc:
            self._metrics.label_rejection(exc.code)
            raise
        # Labels that wait for the database hold no place of a prediction.
        results = await self._recorded(given, deadline)
        for each in results:
            if isinstance(each, ServingError):
                self._metrics.label_rejection(each.code)
        if several:
            return {"results": [_told(each) for each in results]}
        (result,) = results
        if isinstance(result, ServingError):
            raise result
        return result

    async def _judged(self, items: Sequence[object]) -> list[Given | ServingError]:
        """Each of them, at 7 us each; the loop looks at its sockets in between."""
        judged: list[Given | ServingError] = []
        for each in items:
            judged.append(self._given(each))
            if not len(judged) % TOGETHER:
                await asyncio.sleep(0)
        return judged

    async def _recorded(
        self, given: Sequence[Given | ServingError], deadline: float
    ) -> list[dict[str, Any] | ServingError]:
        now = time.time()
        sound = [each for each in given if isinstance(each, Given)]
        try:
            before = await self._writer.write([each.row(now) for each in sound], deadline)
        except ServingError as exc:
            for each in given:
                self._metrics.label_rejection(
                    each.code if isinstance(each, ServingError) else exc.code
                )
            raise
        known = iter(zip(sound, before, strict=True))
        return [
            each if isinstance(each, ServingError) else self._outcome(*next(known))
            for each in given
        ]

    def _outcome(self, given: Given, before: str | None) -> dict[str, Any] | ServingError:
        if before is None:
            self._metrics.label_delay(given.signed.model, max(0.0, time.time() - given.signed.at))
            return given.told("recorded")
        if before == given.label:
            self._metrics.label_rejection("duplicate")
            return given.told("duplicate")
        return ConflictingFeedback(
            f"The prediction has the label {before!r} already, and not {given.label!r}."
        )

    def _given(self, item: object) -> Given | ServingError:
        """One item of a body, or what is wrong with it."""
        try:
            text, label, source = _fields(item)
            signed = self._signer.read(text)
            known = self._labels(signed)
            if label not in known:
                raise UnknownLabel(
                    f"{signed.model} {signed.version} has no label {label[:40]!r}."
                    f" Known labels: {', '.join(known)}."
                )
        except ServingError as exc:
            return exc
        return Given(signed, label, source)

    def _labels(self, signed: Prediction) -> Sequence[str]:
        """Those of the version that predicted or, where it has been retired, of the others, which
        can tell whether it was right.

        Raises:
            UnknownModel: no version of the model is served.
        """
        serves = self._predictor.serves()
        versions = serves.versions(signed.model)
        if signed.version in versions:
            return serves.get(signed.model, signed.version).labels
        models = [serves.get(signed.model, each) for each in versions]
        others = dict.fromkeys(label for model in models for label in model.labels)
        return list(others | {signed.label: None})


def _parsed(data: bytes) -> dict[str, Any] | list[Any]:
    if data.count(b",") > COMMAS:  # before any is made: a few bytes of each would hold the process
        raise RequestTooLarge(f"The body has far more than {MOST} labels. Expected at most {MOST}.")
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise BadRequest(f"The body is no JSON: {exc}. Expected {_EXPECTED}.") from exc
    if not isinstance(body, dict | list) or body == []:
        raise BadRequest(f"The body is no object and no list of any. Expected {_EXPECTED}.")
    if len(body) > MOST:
        raise RequestTooLarge(f"The body has {len(body)} labels. Expected at most {MOST}.")
    return body


_EXPECTED = '{"id": "…", "label": "…"}, or a list of such'


def _fields(item: object) -> tuple[str, str, str]:
    """Id, label and source of an item."""
    if not isinstance(item, dict):
        raise BadRequest(f"An item is no object. Expected {_EXPECTED}.")
    if unknown := sorted(item.keys() - KEYS):
        raise BadRequest(f"No key named {unknown[0][:40]!r}. Known: {', '.join(sorted(KEYS))}.")
    text, label, source = item.get("id"), item.get("label"), item.get("source", SOURCES[0])
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)  # a digit
    if not isinstance(text, str) or not isinstance(label, str):
        raise BadRequest(f"An id or a label is missing, or no text. Expected {_EXPECTED}.")
    if source not in SOURCES:
        raise BadRequest(f"The source is {str(source)[:40]!r}. Known: {', '.join(SOURCES)}.")
    return text, label, source


def _told(result: Mapping[str, Any] | ServingError) -> Mapping[str, Any]:
    return result.body if isinstance(result, ServingError) else result
