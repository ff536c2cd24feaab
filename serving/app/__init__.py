"""``create_app``: the table of contents of one worker.

Each part is made here, once, and attaches itself; nothing is computed here.
"""

import asyncio
import os
import threading
from pathlib import Path

from flask import Flask

from serving.api.pipeline import Predictor
from serving.app import hooks, views
from serving.app.loop_thread import Loop
from serving.app.service import Service
from serving.errors import ModelError
from serving.feedback import service
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
BODIES = 8  # of the largest size, that one worker holds at once: 256 MB by default


def create_app(
    settings: Settings | None = None,
    *,
    slot: int | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Flask:
    """The web application with its models loaded and tested.

    ``slot`` is the number of this worker among those that share one folder of metrics and states;
    ``loop`` the event loop that it runs, if it runs one.

    Raises:
        SettingsError: a setting is unknown or malformed.
        ModelError: a published model is broken; in a worker, which may replace one that serves,
            only if none is sound.
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
    metrics = Metrics(slot=slot, since=None if folder is None else run_dir.began(folder))
    reloader = Reloader(settings, metrics, Workers(folder, slot or 0))
    reloader.refresh()
    if not reloader.repository.names or (slot is None and reloader.refused):
        raise ModelError(" ".join(reloader.refused.values()))

    def serves() -> Repository:
        return reloader.repository

    admission = Admission(
        max_requests=settings.requests,
        max_images=settings.queue,
        max_bytes=BODIES * settings.max_body_bytes,
    )
    predictor = Predictor(settings, serves, admission, Batcher(lanes=settings.lanes), metrics)
    key = None if folder is None else run_dir.key(folder)
    return Service(
        settings=settings,
        reloader=reloader,
        predictor=predictor,
        labelling=service.made(settings, metrics, serves, slot=slot or 0, run_key=key),
        golden=Golden(settings.models, serves, predictor.decoder.read, predictor.batcher, metrics),
        metrics=metrics,
        draining=threading.Event(),
        loop=loop,
    )
