"""The parts of one worker, and the table of routes over them.

Knows the parts; knows nothing of Flask.
"""

import threading
from dataclasses import dataclass
from functools import cached_property

from serving.api import routes
from serving.api.body import Intake
from serving.api.pipeline import Pipeline
from serving.api.routes import Pool, Route
from serving.app.loop_thread import Loop
from serving.app.openapi import document
from serving.errors import DeviceMissing, Draining
from serving.feedback.service import FeedbackService
from serving.inference.golden import Golden
from serving.inference.models.reloader import Reloader
from serving.inference.models.repository import Repository
from serving.monitoring.metrics import Metrics
from serving.settings import Settings


@dataclass(frozen=True)
class Service:
    """The parts that the routes work with; one for each worker."""

    settings: Settings
    reloader: Reloader
    pipeline: Pipeline
    labels: Intake
    feedback: FeedbackService
    golden: Golden
    metrics: Metrics
    draining: threading.Event
    loop: Loop
    pool: Pool  # for what blocks

    @property
    def repository(self) -> Repository:
        """The versions that are served now. Take it once where two look-ups must agree."""
        return self.reloader.repository

    @cached_property
    def routes(self) -> list[Route]:
        """The table of routes."""
        return routes.table(
            pipeline=self.pipeline,
            labels=self.labels,
            feedback=self.feedback,
            metrics=self.metrics,
            pool=self.pool,
            ready=self.ready,
            openapi=document.document(self.settings),
        )

    def ready(self) -> dict[str, str]:
        """Return the answer of ``/readyz``. A worker accepts no connection before all its models
        are tested.

        Raises:
            Draining: this replica is about to stop.
            DeviceMissing: a model does not run on the requested device.
        """
        if self.draining.is_set():
            raise Draining("This replica is about to stop.")
        for model in self.repository:
            if model.missing_device:
                raise DeviceMissing(model.missing_device)
        return {"status": "ready"}
