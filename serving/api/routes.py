"""The table of routes, for the HTTP engine and for Flask.

Knows the handlers and the shapes of each protocol; knows no server and no framework.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from serving.api import openinference, predict, tfserving
from serving.api.body import Intake
from serving.api.exchange import Answer, Exchange, encoded
from serving.api.feedback import Feedback
from serving.api.models import Models
from serving.api.pipeline import Pipeline
from serving.errors import Overloaded
from serving.feedback.service import FeedbackService
from serving.inference.admission import Admission
from serving.monitoring import exposition
from serving.monitoring.metrics import Metrics

HEAD = "Inference-Header-Content-Length"
PER_THREAD = 16  # requests that wait for each thread of a pool

Result = TypeVar("Result")


@dataclass(frozen=True)
class Route:
    """A method, a path in which ``<name>`` stands for any text without a slash, and the handler."""

    method: str
    path: str
    handle: Callable[[Exchange], Answer | Awaitable[Answer]]
    immediate: bool = False  # the handler returns an answer without waiting
    admission: Admission | None = None  # the places of requests that have a body


class Pool:
    """Threads for requests that block, with a bounded queue."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most, self._running = PER_THREAD * threads, 0

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run ``work`` in a thread, or raise Overloaded: the queue is full."""
        if self._running >= self._most:
            raise Overloaded(f"All {self._most} places in the queue are taken. Try again later.")
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._running -= 1


def table(
    *,
    pipeline: Pipeline,
    labels: Intake,
    feedback: FeedbackService,
    metrics: Metrics,
    pool: Pool,
    ready: Callable[[], Mapping[str, str]],
    openapi: Mapping[str, Any],
) -> list[Route]:
    """Return all routes. ``ready`` raises while this replica is not ready; ``pool`` runs what
    blocks."""
    scraping = ThreadPoolExecutor(1, thread_name_prefix="metrics")  # behind no other request
    description = encoded(openapi)
    answer = partial(predict.answer, pipeline=pipeline, metrics=metrics)
    models = Models(pipeline.reloader, feedback.database, metrics)
    recorder = Feedback(labels, pipeline.reloader, feedback, metrics)

    async def page(_: Exchange) -> Answer:
        made = await asyncio.get_running_loop().run_in_executor(scraping, metrics.page)
        return Answer(200, made, exposition.CONTENT_TYPE)

    def blocking(path: str, make: Callable[[Exchange], Mapping[str, Any]]) -> Route:
        async def handle(exchange: Exchange) -> Answer:
            return _json(await pool.run(partial(make, exchange)))

        return Route("GET", path, handle)

    return [
        Route("POST", "/predict/<name>", answer, admission=pipeline.admission),
        Route("POST", "/predict", answer, admission=pipeline.admission),
        Route("POST", "/feedback", recorder.answer, admission=labels.admission),
        Route("GET", "/metrics", page),
        blocking("/models", models.every),
        blocking("/models/<name>", models.one),
        blocking("/models/<name>/quality", models.quality),
        Route("GET", "/openapi.json", lambda _: Answer(200, description), immediate=True),
        _immediate("/healthz", lambda _: {"status": "alive"}),
        _immediate("/readyz", lambda _: ready()),
        *_openinference(pipeline, ready),
        *_tfserving(pipeline),
    ]


def _openinference(pipeline: Pipeline, ready: Callable[[], object]) -> Iterator[Route]:
    def server_ready(_: Exchange) -> Mapping[str, Any]:
        ready()
        return openinference.READY

    def metadata(exchange: Exchange) -> Mapping[str, Any]:
        model = pipeline.model(**exchange.names)
        return openinference.metadata(model, pipeline.reloader.repository.versions(model.name))

    def model_ready(exchange: Exchange) -> Mapping[str, Any]:
        model = pipeline.model(**exchange.names)
        ready()
        return {"name": model.name, "ready": True}

    async def infer(exchange: Exchange) -> Answer:
        model = pipeline.model(**exchange.names, request_id=exchange.id)
        head = exchange.header(HEAD.lower())
        parse = partial(openinference.parse, head=head, typical=model.typical)
        asked, predictions = await pipeline.predict(exchange, model, parse)
        body, tensors = openinference.answer(asked, model, predictions)
        if not tensors:
            return _json(body)
        start = encoded(body)
        headers = {HEAD: str(len(start))}
        return Answer(200, start + tensors, "application/octet-stream", headers)

    yield _immediate("/v2", lambda _: openinference.SERVER)
    yield _immediate("/v2/", lambda _: openinference.SERVER)
    yield _immediate("/v2/health/live", lambda _: openinference.LIVE)
    yield _immediate("/v2/health/ready", server_ready)
    for path in ("/v2/models/<name>", "/v2/models/<name>/versions/<version>"):
        yield _immediate(path, metadata)
        yield _immediate(f"{path}/ready", model_ready)
        yield Route("POST", f"{path}/infer", infer, admission=pipeline.admission)


def _tfserving(pipeline: Pipeline) -> Iterator[Route]:
    def status(exchange: Exchange) -> Mapping[str, Any]:
        if exchange.names.keys() != {"name"}:
            return tfserving.status([pipeline.model(**exchange.names)])
        served, name = pipeline.reloader.repository, exchange.names["name"]
        return tfserving.status(served.get(name, each) for each in served.versions(name))

    def metadata(exchange: Exchange) -> Mapping[str, Any]:
        return tfserving.metadata(pipeline.model(**exchange.names))

    async def predict(exchange: Exchange) -> Answer:
        model = pipeline.model(**exchange.names, request_id=exchange.id)
        asked, predictions = await pipeline.predict(exchange, model, tfserving.parse)
        return _json(tfserving.answer(asked, predictions))

    for which in ("", "/versions/<version>", "/labels/<label>"):
        path = f"/v1/models/<name>{which}"
        yield _immediate(path, status)
        yield _immediate(f"{path}/metadata", metadata)
        yield Route("POST", f"{path}:predict", predict, admission=pipeline.admission)


def _immediate(path: str, make: Callable[[Exchange], Mapping[str, Any]]) -> Route:
    return Route("GET", path, lambda exchange: _json(make(exchange)), immediate=True)


def _json(body: Mapping[str, Any]) -> Answer:
    return Answer(200, encoded(body))
