"""``POST /feedback``: the true labels of predictions, one or many, each recorded at most once.

Knows prediction ids, the writer and the JSON of both sides; knows no server and no database.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from serving.api.body import Intake
from serving.api.exchange import Answer, Exchange, encoded
from serving.errors import (
    BadRequest,
    ConflictingFeedback,
    RequestTooLarge,
    ServingError,
    UnknownLabel,
)
from serving.feedback.ids import SignedPrediction
from serving.feedback.labels import Label
from serving.feedback.service import FeedbackService
from serving.inference.models.reloader import Reloader
from serving.monitoring.metrics import Metrics

MOST = 1000  # labels of one request
COMMAS = 8 * MOST  # an item has three, and a label may hold some
TOGETHER = 200  # labels between two visits to the event loop: 7 us each
SOURCES = ("user", "audit", "gold")
KEYS = {"id", "label", "source"}
EXPECTED = '{"id": "…", "label": "…"}, or a list of them'


class Feedback:
    """The handler of ``/feedback``. Its own intake: full queues of predictions refuse no label."""

    def __init__(
        self, intake: Intake, reloader: Reloader, service: FeedbackService, metrics: Metrics
    ) -> None:
        self._intake, self._reloader, self._metrics = intake, reloader, metrics
        self._signer, self._writer = service.signer, service.writer

    async def answer(self, exchange: Exchange) -> Answer:
        """Record one label, or each of a list; of a list, an invalid label is an error in its
        place.

        Raises:
            ServingError: the request, or its only label, is invalid; or the database is away.
        """
        try:
            given, several, deadline = await self._intake.run(exchange, _parse, self._check)
        except ServingError as exc:
            self._metrics.label_rejection(exc.code)
            raise
        results = await self._record(given, deadline)  # while it waits, it holds no place
        for each in results:
            if isinstance(each, ServingError):
                self._metrics.label_rejection(each.code)
        if several:
            listed = [each.body if isinstance(each, ServingError) else each for each in results]
            return Answer(200, encoded({"results": listed}))
        if isinstance(results[0], ServingError):
            raise results[0]
        return Answer(200, encoded(results[0]))

    async def _check(
        self, body: dict[str, Any] | list[Any], deadline: float
    ) -> tuple[list[Label | ServingError], bool, float]:
        """Check each label, and let the event loop serve its sockets in between."""
        several = isinstance(body, list)
        given: list[Label | ServingError] = []
        for each in body if isinstance(body, list) else [body]:
            given.append(self._given(each))
            if not len(given) % TOGETHER:
                await asyncio.sleep(0)
        return given, several, deadline

    async def _record(
        self, given: Sequence[Label | ServingError], deadline: float
    ) -> list[Mapping[str, Any] | ServingError]:
        valid = [each for each in given if isinstance(each, Label)]
        try:
            before = await self._writer.write(valid, deadline)
        except ServingError as exc:
            for each in given:
                self._metrics.label_rejection(
                    each.code if isinstance(each, ServingError) else exc.code
                )
            raise
        known = iter(zip(valid, before, strict=True))
        return [
            each if isinstance(each, ServingError) else self._outcome(*next(known))
            for each in given
        ]

    def _outcome(self, given: Label, before: str | None) -> dict[str, Any] | ServingError:
        if before not in (None, given.label):
            return ConflictingFeedback(
                f"The prediction already has the label {before!r}, not {given.label!r}."
            )
        if before is None:
            self._metrics.label_delay(given.model, max(0.0, time.time() - given.predicted_at))
        else:
            self._metrics.label_rejection("duplicate")
        return {
            "status": "recorded" if before is None else "duplicate",
            "correct": given.correct,
            "model": given.model,
            "version": given.version,
            "predicted": given.predicted,
            "label": given.label,
        }

    def _given(self, item: object) -> Label | ServingError:
        """Return an item of the body as a valid label, or the reason why it is not one."""
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
        return Label(
            id=signed.key,
            model=signed.model,
            version=signed.version,
            predicted=signed.label,
            confidence=signed.confidence,
            label=label,
            source=source,
            predicted_at=signed.at,
            labelled_at=time.time(),
        )

    def _labels(self, signed: SignedPrediction) -> Sequence[str]:
        """Return the labels of the version that predicted. Where it is retired, return those of the
        versions that are served, and the predicted one.

        Raises:
            UnknownModel: no version of the model is served.
        """
        repository = self._reloader.repository
        versions = repository.versions(signed.model)
        if signed.version in versions:
            return repository.get(signed.model, signed.version).labels
        models = [repository.get(signed.model, each) for each in versions]
        others = dict.fromkeys(label for model in models for label in model.labels)
        return list(others | {signed.label: None})


def _parse(data: bytes) -> dict[str, Any] | list[Any]:
    if data.count(b",") > COMMAS:  # bounds at no cost what the JSON parser allocates
        raise RequestTooLarge(f"The body has far more than {MOST} labels. Expected at most {MOST}.")
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise BadRequest(f"The body is not JSON: {exc}. Expected {EXPECTED}.") from exc
    if not isinstance(body, dict | list) or body == []:
        raise BadRequest(f"The body is not an object or a list of objects. Expected {EXPECTED}.")
    if len(body) > MOST:
        raise RequestTooLarge(f"The body has {len(body)} labels. Expected at most {MOST}.")
    return body


def _fields(item: object) -> tuple[str, str, str]:
    """Return the id, the label and the source of an item."""
    if not isinstance(item, dict):
        raise BadRequest(f"An item is not an object. Expected {EXPECTED}.")
    if unknown := sorted(item.keys() - KEYS):
        raise BadRequest(f"No key named {unknown[0][:40]!r}. Known: {', '.join(sorted(KEYS))}.")
    text, label, source = item.get("id"), item.get("label"), item.get("source", SOURCES[0])
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)  # a digit
    if not isinstance(text, str) or not isinstance(label, str):
        raise BadRequest(f"The id or the label is not a string. Expected {EXPECTED}.")
    if source not in SOURCES:
        raise BadRequest(f"The source is {str(source)[:40]!r}. Known: {', '.join(SOURCES)}.")
    return text, label, source
