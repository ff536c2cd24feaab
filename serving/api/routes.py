"""The routes that are answered in the event loop: one table, for what stands before Flask and for
Flask itself.

Knows the predictor, the shapes of each protocol and what an answer is; runs on no server and no
framework in particular.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from serving.api import openinference, tfserving
from serving.api.context import Answer, Call, encoded
from serving.api.feedback import Feedback
from serving.api.pipeline import Predictor
from serving.api.predict import Ids, Predictions
from serving.monitoring import exposition

HEAD = "Inference-Header-Content-Length"
ALIVE = {"status": "alive"}

Respond = Callable[[Call], Coroutine[Any, Any, Answer]]


@dataclass(frozen=True)
class Route:
    """A method, a path in which ``<name>`` stands for any text without a slash, and its answer."""

    method: str
    path: str
    respond: Respond
    waits: bool = True  # or its answer is there in the step in which it is asked for


def table(
    predictions: Predictions,
    feedback: Feedback,
    predictor: Predictor,
    ids: Ids,
    ready: Callable[[], Mapping[str, str]],
    page: Callable[[], bytes],
) -> list[Route]:
    """All of them; ``ready`` raises while this replica is not, ``page`` is that of the metrics."""
    scraping = ThreadPoolExecutor(1, thread_name_prefix="metrics")  # waits for no other request

    async def predict(call: Call) -> Answer:
        return _json(await predictions.answer(call))

    async def label(call: Call) -> Answer:
        return _json(await feedback.answer(call))

    async def metrics(_: Call) -> Answer:
        told = await asyncio.get_running_loop().run_in_executor(scraping, page)
        return Answer(200, told, exposition.CONTENT_TYPE)

    return [
        Route("POST", "/predict/<name>", predict),
        Route("POST", "/predict", predict),
        Route("POST", "/feedback", label),
        Route("GET", "/metrics", metrics),
        _told("/healthz", lambda _: ALIVE),
        _told("/readyz", lambda _: ready()),
        *_openinference(predictor, ids, ready),
        *_tfserving(predictor, ids),
    ]


def _openinference(predictor: Predictor, ids: Ids, ready: Callable[[], object]) -> Iterable[Route]:
    def server_ready(_: Call) -> Mapping[str, Any]:
        ready()
        return openinference.READY

    def metadata(call: Call) -> Mapping[str, Any]:
        model = predictor.model(**call.names)
        return openinference.metadata(model, predictor.serves().versions(model.name))

    def model_ready(call: Call) -> Mapping[str, Any]:
        model = predictor.model(**call.names)
        ready()
        return {"name": model.name, "ready": True}

    async def infer(call: Call) -> Answer:
        parse = partial(openinference.parse, head=call.header(HEAD.lower()))
        model, asked, rows = await predictor.predict(call, parse)
        made = ids(model, asked.images, rows) if asked.wants_ids else []
        told, tensors = openinference.answer(asked, model, rows, made)
        if not tensors:
            return _json(told)
        head = encoded(told)
        headers = {HEAD: str(len(head))}
        return Answer(200, head + tensors, "application/octet-stream", headers)

    yield _told("/v2", lambda _: openinference.SERVER)
    yield _told("/v2/", lambda _: openinference.SERVER)
    yield _told("/v2/health/live", lambda _: openinference.LIVE)
    yield _told("/v2/health/ready", server_ready)
    for path in ("/v2/models/<name>", "/v2/models/<name>/versions/<version>"):
        yield _told(path, metadata)
        yield _told(f"{path}/ready", model_ready)
        yield Route("POST", f"{path}/infer", infer)


def _tfserving(predictor: Predictor, ids: Ids) -> Iterable[Route]:
    def status(call: Call) -> Mapping[str, Any]:
        if call.names.keys() != {"name"}:
            return tfserving.status([predictor.model(**call.names)])
        served, name = predictor.serves(), call.names["name"]
        return tfserving.status(served.get(name, each) for each in served.versions(name))

    def metadata(call: Call) -> Mapping[str, Any]:
        return tfserving.metadata(predictor.model(**call.names))

    async def predict(call: Call) -> Answer:
        model, asked, rows = await predictor.predict(call, tfserving.parse)
        return _json(tfserving.answer(asked, rows, ids(model, asked.images, rows)))

    for which in ("", "/versions/<version>", "/labels/<label>"):
        path = f"/v1/models/<name>{which}"
        yield _told(path, status)
        yield _told(f"{path}/metadata", metadata)
        yield Route("POST", f"{path}:predict", predict)


def _told(path: str, tell: Callable[[Call], Mapping[str, Any]]) -> Route:
    """An answer that needs no waiting."""

    async def respond(call: Call) -> Answer:
        return _json(tell(call))

    return Route("GET", path, respond, waits=False)


def _json(body: Mapping[str, Any]) -> Answer:
    return Answer(200, encoded(body))


class Finder:
    """Finds the route of a request, at a cost that a prediction does not notice."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._named: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            if "<" not in route.path:
                self._exact[route.method, route.path] = route
                continue
            key = route.method, _first(route.path)
            pattern = re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", route.path)
            self._named.setdefault(key, []).append((re.compile(pattern), route))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route, and what stands in its path for each name."""
        if (exact := self._exact.get((method, path))) is not None:
            return exact, {}
        for pattern, route in self._named.get((method, _first(path)), ()):
            if found := pattern.fullmatch(path):
                return route, found.groupdict()
        return None


def _first(path: str) -> str:
    return path[: path.find("/", 1)]
