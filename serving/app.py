"""``create_app``: the table of contents of one worker.

Each part is made here, once, and attaches itself; nothing is computed here.
"""

import os
import threading

from flask import Flask

from serving import api, api_edge, repository
from serving.batcher import Batcher
from serving.metrics import Metrics
from serving.settings import Settings

SERVICE = "convserve"  # the key of the ``Service`` in ``app.extensions``


def create_app(settings: Settings | None = None, *, slot: int | None = None) -> Flask:
    """The web application with its models loaded and tested.

    ``slot`` is the number of this worker among those that share one page of metrics.

    Raises:
        SettingsError: a setting is unknown or malformed.
        ModelError: a published model is broken.
    """
    settings = settings or Settings.from_environ(os.environ)
    app = Flask("serving", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.url_map.merge_slashes = False  # one error shape, and no redirects
    service = api.Service(
        settings=settings,
        repository=repository.load(
            settings.models,
            intra_threads=settings.intra_threads,
            max_pixels=settings.max_pixels,
        ),
        batcher=Batcher(
            lanes=settings.lanes,
            decodes=settings.lanes * settings.intra_threads,  # the processors that inferences use
            max_requests=settings.places,
            max_images=settings.queue,
        ),
        metrics=Metrics(slot=slot),
        draining=threading.Event(),
    )
    for model in service.repository:
        service.metrics.loaded(
            model.name, model.version, provider=model.provider, labels=model.labels
        )
    api_edge.init_app(app, service.metrics)
    app.register_blueprint(api.blueprint(service))
    app.extensions[SERVICE] = service
    return app
