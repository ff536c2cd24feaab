"""What a worker needs to sign predictions, to record their labels and to tell of both.

Knows the settings of feedback and puts its parts together; knows no protocol.
"""

import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.feedback.collector import Scores
from serving.feedback.ids import Signer
from serving.feedback.image_store import Kept
from serving.feedback.writer import Recorder
from serving.inference.images.decoder import Image
from serving.inference.models.model import Model
from serving.monitoring.metrics import Metrics
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.feedback.database import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelling:
    """The parts, one of each for a worker."""

    signer: Signer
    recorder: Recorder
    kept: Kept

    def ids(
        self, model: Model, images: Sequence[Image], answers: Sequence[tuple[str, float]]
    ) -> list[str]:
        """Return an id for each image, and keep a share of the files under their ids. ``answers``
        are the labels of the images and their probabilities."""
        ids = self.signer.sign(model.name, model.version, answers)
        if self.kept.share:
            for text, image in zip(ids, images, strict=True):
                if isinstance(image, bytes):
                    self.kept.offer(model.name, self.signer.read(text).key, image)
        return ids


def made(
    settings: Settings,
    metrics: Metrics,
    serves: Callable[[], Iterable[Model]],
    *,
    slot: int,
    run_key: str | None,
) -> Labelling:
    """They and their series. ``run_key`` signs where the settings name no key; without one, the
    ids end with this process."""
    keys = settings.keys or [run_key or secrets.token_hex(32)]

    def store() -> "Store":
        from serving.feedback.database import Store

        return Store(settings.feedback_url, replica=settings.counts_as, worker=slot)

    recorder = Recorder(store)
    metrics.add(Scores(lambda: recorder.store.sums(), serves, ephemeral=not settings.keys))
    kept = Kept(
        settings.keep_folder,
        share=settings.keep_images,
        megabytes=settings.keep_megabytes,
        days=settings.keep_days,
    )
    return Labelling(Signer(keys, days=settings.feedback_days), recorder, kept)
