"""The routes and their JSON: images in, classes out; what is served; is it alive; is it right.

Knows Flask and every module beside it. Views do HTTP and nothing else.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Blueprint, Response, g, request

from serving.api.context import Call, positive
from serving.api.routes import Respond
from serving.app import wsgi_body
from serving.app.hooks import json_response
from serving.app.openapi import document
from serving.app.service import Service
from serving.errors import BadRequest, BodyTooSlow
from serving.feedback import quality
from serving.inference.models.model import Model
from serving.inference.models.repository import Repository

READERS = 1024  # threads for slow bodies under Flask alone: as many as its server has, at most


def blueprint(service: Service) -> Blueprint:
    """The routes over one service."""
    views = Blueprint("api", __name__)
    described = document.document(service.settings)
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="body")

    for route in service.routes():
        endpoint = f"{route.method} {route.path}".replace(".", " ")
        views.add_url_rule(
            route.path, endpoint, _in_loop(service, readers, route.respond), methods=[route.method]
        )

    @views.get("/models")
    def get_models() -> Response:
        served = service.repository
        return json_response(
            {
                "models": [_model(service, served, each) for each in served.names],
                "refused": _refused(service, lambda name: name not in served.names),
                "workers": service.reloader.workers.states(),
            }
        )

    @views.get("/models/<name>")
    def get_model(name: str) -> Response:
        return json_response(_model(service, service.repository, name))

    @views.get("/models/<name>/quality")
    def get_quality(name: str) -> Response:
        return json_response(_quality(service, name))

    @views.get("/openapi.json")
    def get_openapi() -> Response:
        return json_response(described)

    return views


def _in_loop(
    service: Service, readers: ThreadPoolExecutor, respond: Respond
) -> Callable[..., Response]:
    """The view of a route that is answered in the event loop."""

    def view(**names: str) -> Response:
        unproxied = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001

        async def read(deadline: float) -> bytes:
            limit, loop = service.settings.max_body_bytes, asyncio.get_running_loop()
            try:
                async with asyncio.timeout_at(deadline):
                    return await loop.run_in_executor(readers, wsgi_body.whole, unproxied, limit)
            except TimeoutError:
                raise BodyTooSlow("The body did not come in time.") from None

        call = Call(
            names=names,
            query=request.query_string.decode("latin-1"),
            header=request.headers.get,
            read=read,
            used=g.exchange.used,
            request_id=g.exchange.id,
            began=g.exchange.began,
        )
        answer = service.loop.run(respond(call))
        return Response(
            answer.body, answer.status, answer.headers, content_type=answer.content_type
        )

    return view


def _model(service: Service, served: Repository, name: str) -> dict[str, Any]:
    versions, rule = served.versions(name), served.rule(name)
    parts = {"canary": rule.canary, "shadow": rule.shadow}
    return {
        "name": name,
        "default_version": served.default(name),
        "version_labels": dict(rule.labels),
        **{
            what: {"version": part.version, "share": part.share}
            for what, part in parts.items()
            if part is not None
        },
        "versions": [_version(served.get(name, version)) for version in versions],
        "refused": _refused(service, lambda other: other == name),
    }


def _refused(service: Service, of: Callable[[str], bool]) -> dict[str, str]:
    """What is refused, and why, where the first part of its path is one of those."""
    refused = service.reloader.refused.items()
    return {path: why for path, why in refused if of(path.partition("/")[0])}


def _quality(service: Service, name: str) -> dict[str, Any]:
    served = service.repository
    models = [served.get(name, version) for version in served.versions(name)]
    if unknown := sorted(request.args.keys() - {"labels"}):
        raise BadRequest(f"No parameter named {unknown[0]!r}. Known parameters: labels.")
    newest = positive("The parameter 'labels'", request.args.get("labels", str(quality.NEWEST)))
    store = service.labelling.recorder.store
    return {
        "model": name,
        **quality.quality(
            models,
            store.newest(name, min(newest, quality.MOST)),
            service.metrics.predicted(name),
            store.written(name, since=service.metrics.since),
        ),
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
        "precision": model.precision,
        **{key: value for key, value in model.about.items() if key != "baseline"},
    }
