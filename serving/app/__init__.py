"""The web application of one worker: ``create_app`` makes each part once and connects them.

May import errors, cpus, settings, monitoring, inference, feedback and api; holds Flask.
"""

import asyncio
import os
import threading
from pathlib import Path

from flask import Flask

from serving.api.body import Intake, Limits
from serving.api.pipeline import Pipeline
from serving.api.routes import Pool
from serving.app import hooks, views
from serving.app.loop_thread import Loop
from serving.app.service import Service
from serving.errors import ModelError
from serving.feedback import service as labels
from serving.inference.admission import Admission
from serving.inference.batcher import Batcher
from serving.inference.golden import Golden
from serving.inference.models.reloader import Reloader
from serving.inference.models.repository import Repository
from serving.inference.models.worker_state import Workers
from serving.monitoring import run_dir
from serving.monitoring.metrics import Metrics
from serving.settings import Settings

SERVICE = "convserve"  # the key of the ``Service`` in ``app.extensions``
BODIES = 8  # bodies of the largest size that one worker holds at once: 256 MB by default


def create_app(
    settings: Settings | None = None,
    *,
    slot: int | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Flask:
    """Return the web application, its models loaded and tested.

    ``slot`` is the number of this worker among those that share one folder of metrics and states;
    ``loop`` is the running event loop of the worker, if it has one.

    Raises:
        SettingsError: a setting is unknown or malformed.
        ModelError: a published model is broken. In a worker, which may replace one that serves,
            only if no version is sound.
    """
    settings = settings or Settings.from_environ(os.environ)
    app = Flask("serving", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.url_map.merge_slashes = False  # one error shape, and no redirects
    service = _service(settings, slot, Loop(loop))
    hooks.init_app(app, service.metrics)
    app.register_blueprint(views.blueprint(service))
    app.extensions[SERVICE] = service
    return app


def _service(settings: Settings, slot: int | None, loop: Loop) -> Service:
    folder = None if slot is None else Path(os.environ[run_dir.DIRECTORY])
    metrics = Metrics(slot=slot, since=None if folder is None else run_dir.started_at(folder))
    reloader = Reloader(settings, metrics, Workers(folder, slot or 0))
    reloader.refresh()
    if not reloader.repository.names or (slot is None and reloader.refused):
        raise ModelError(" ".join(reloader.refused.values()))

    def serves() -> Repository:
        return reloader.repository

    def intake(bodies: int) -> Intake:
        admission = Admission(
            max_requests=settings.requests,
            max_images=settings.queue,
            max_bytes=bodies * settings.max_body_bytes,
        )
        limits = Limits(settings.max_body_bytes, settings.max_images)
        return Intake(admission, limits, timeout_ms=settings.timeout_ms)

    key = None if folder is None else run_dir.key(folder)
    feedback = labels.create(settings, metrics, serves, slot=slot or 0, run_key=key)
    batcher = Batcher(lanes=settings.lanes)
    pipeline = Pipeline(settings, reloader, intake(BODIES), batcher, metrics, feedback)
    return Service(
        settings=settings,
        reloader=reloader,
        pipeline=pipeline,
        labels=intake(1),
        feedback=feedback,
        golden=Golden(settings.models, serves, pipeline.decoder.read, batcher, metrics),
        metrics=metrics,
        draining=threading.Event(),
        loop=loop,
        pool=Pool(settings.threads, "blocking"),
    )
