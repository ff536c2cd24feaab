"""The feedback parts of one worker: they sign predictions, record labels and report both."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from serving.feedback.collector import FeedbackCollector
from serving.feedback.database import Database
from serving.feedback.ids import Signer
from serving.feedback.image_store import ImageStore
from serving.feedback.writer import Writer
from serving.inference.images.decoder import Image
from serving.inference.models.model import Model
from serving.monitoring.metrics import Metrics
from serving.settings import Settings


@dataclass(frozen=True)
class FeedbackService:
    """The parts, one of each per worker."""

    signer: Signer
    database: Database
    writer: Writer
    images: ImageStore

    def keep(self, model: Model, images: Sequence[Image], ids: Sequence[str]) -> None:
        """Keep a share of the image files under their ids."""
        for text, image in zip(ids, images, strict=True):
            if isinstance(image, bytes):
                self.images.offer(model.name, self.signer.read(text).key, image)


def create(
    settings: Settings,
    metrics: Metrics,
    serves: Callable[[], Iterable[Model]],
    *,
    slot: int,
    run_key: str | None,
) -> FeedbackService:
    """Create the parts and their series. ``run_key`` signs if the settings name no key; without
    either, ids are valid in this process only."""
    keys = settings.keys or [run_key or secrets.token_hex(32)]
    database = Database(settings.feedback_url, replica=settings.replica_name, worker=slot)
    collector = FeedbackCollector(lambda: database.sums(), serves, ephemeral=not settings.keys)
    metrics.add_computed(collector.collect)
    images = ImageStore(
        settings.keep_folder,
        share=settings.keep_images,
        megabytes=settings.keep_megabytes,
        days=settings.keep_days,
        count=metrics.kept_image,
    )
    signer = Signer(keys, days=settings.feedback_days)
    return FeedbackService(signer, database, Writer(database), images)
