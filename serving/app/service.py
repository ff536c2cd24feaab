"""One worker's parts, and the routes over them.

Knows what the parts are; knows nothing of Flask.
"""

import threading
from dataclasses import dataclass

from serving.api import routes
from serving.api.feedback import Feedback
from serving.api.pipeline import Predictor
from serving.api.predict import Predictions
from serving.api.routes import Route
from serving.app.loop_thread import Loop
from serving.errors import DeviceMissing, Draining
from serving.feedback.service import Labelling
from serving.inference.golden import Golden
from serving.inference.models.reloader import Reloader
from serving.inference.models.repository import Repository
from serving.monitoring import metrics
from serving.settings import Settings


@dataclass(frozen=True)
class Service:
    """What the routes work with, one for each worker."""

    settings: Settings
    reloader: Reloader
    predictor: Predictor
    labelling: Labelling
    golden: Golden
    metrics: metrics.Metrics
    draining: threading.Event
    loop: Loop

    @property
    def repository(self) -> Repository:
        """What is served at the moment; take it once for what must agree."""
        return self.reloader.repository

    def routes(self) -> list[Route]:
        """Those that are answered in the event loop."""
        labelling = self.labelling
        return routes.table(
            Predictions(self.predictor, labelling.ids, self.metrics),
            Feedback(self.predictor, labelling.signer, labelling.recorder, self.metrics),
            self.predictor,
            labelling.ids,
            self.ready,
            self.metrics.page,
        )

    def ready(self) -> dict[str, str]:
        """What ``/readyz`` tells. A worker takes no connection before all its models are tested.

        Raises:
            Draining: this replica is about to stop.
            DeviceMissing: a model does not run where it was to.
        """
        if self.draining.is_set():
            raise Draining("This replica is about to stop.")
        for model in self.repository:
            if model.missing_device:
                raise DeviceMissing(model.missing_device)
        return {"status": "ready"}
