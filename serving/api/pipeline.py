"""From the images of a request to predictions: the one way, whatever route and protocol was used.

Knows pixels, models, the batcher and prediction ids; knows no server, no framework and no protocol.
It runs in the worker's event loop and moves long work to threads.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.api.body import Intake
from serving.api.exchange import Exchange, is_positive
from serving.api.tensors import Wanted
from serving.errors import ServingError
from serving.feedback.service import FeedbackService
from serving.inference.batcher import Batcher
from serving.inference.images.decoder import Decoder, Image, Spent
from serving.inference.models.model import ROUNDING, Model
from serving.inference.models.reloader import Reloader
from serving.inference.shadow import Shadow
from serving.monitoring.metrics import Metrics
from serving.settings import Settings

Asked = TypeVar("Asked", bound=Wanted)


class Prediction(NamedTuple):
    """The answer for one image."""

    row: list[float]  # a probability for each label
    label: str  # the most probable one
    confidence: float  # its probability
    id: str
    typicality: float | None = None  # None if the version has none


class Pipeline:
    """The pipeline of one worker."""

    def __init__(
        self,
        settings: Settings,
        reloader: Reloader,
        intake: Intake,
        batcher: Batcher,
        metrics: Metrics,
        feedback: FeedbackService,
    ) -> None:
        self.reloader, self._metrics, self._feedback = reloader, metrics, feedback
        self.intake, self.admission, self.batcher = intake, intake.admission, batcher
        self.decoder = Decoder(settings.max_pixels, processors=settings.processors)
        self._shadow = Shadow(
            lambda: reloader.repository, self.admission, metrics, self.decoder.read
        )

    @property
    def in_threads(self) -> int:
        """The number of inferences and large images in threads."""
        return self.batcher.running + self.decoder.in_threads

    def model(
        self,
        name: str,
        version: str | None = None,
        label: str | None = None,
        *,
        request_id: str | None = None,
    ) -> Model:
        """Return the version that a path names by number or by label. Where it names none, the
        routing and the id of the request choose one.

        Raises:
            UnknownModel, UnknownVersion: nothing of that name is served.
        """
        wanted: int | str | None = version or label
        if version is not None and is_positive(version):
            wanted = int(version)
        return self.reloader.repository.get(name, wanted, request_id=request_id)

    def shadow(self, model: Model, exchange: Exchange) -> Model | None:
        """Return the version that also predicts the images of a request, if any."""
        repository = self.reloader.repository
        return repository.shadow(model, exchange.id) if repository.routing else None

    async def predict(
        self, exchange: Exchange, model: Model, parse: Callable[..., Asked]
    ) -> tuple[Asked, list[Prediction]]:
        """Return what ``parse(data, spec, limits)`` finds in the body, and a prediction for each of
        its images.

        Raises:
            ServingError: any error of the tree, that of an unreadable image included.
        """

        async def respond(asked: Asked, deadline: float) -> tuple[Asked, list[Prediction]]:
            exchange.model = model.name, model.version
            shadow = None
            if exchange.names.keys() == {"name"}:
                shadow = self.shadow(model, exchange)
            predictions = await self.infer(
                model,
                asked.images,
                deadline=min(deadline, exchange.began + asked.seconds),
                shadow=shadow,
                ids=asked.ids,
            )
            return asked, [each for each in predictions if isinstance(each, Prediction)]

        read = partial(parse, spec=model.spec, limits=self.intake.limits)
        return await self.intake.run(exchange, read, respond)

    async def infer(
        self,
        model: Model,
        images: Sequence[Image],
        *,
        deadline: float,
        shadow: Model | None = None,
        ids: bool = True,
        tolerant: bool = False,
    ) -> list[Prediction | ServingError]:
        """Return a prediction for each image, in order.

        Where ``tolerant``, an unreadable image among several is an error in its place; otherwise,
        and where it is the only one, it raises.

        Raises:
            ServingError: the queue is full, the deadline has passed, or an image is unreadable.
        """
        spent: Spent = defaultdict(float)
        answers: list[tuple[str, float]] = []
        typicality: list[float] = []
        with self.admission.images(len(images)):
            try:
                decoded = await self.decoder.decode(
                    images,
                    model.spec,
                    deadline=deadline,
                    spent=spent,
                    tolerant=tolerant and len(images) > 1,
                )
                pairs = zip(images, decoded, strict=True)
                sound = [(i, each) for i, each in pairs if not isinstance(each, ServingError)]
                rows = await self._rows(model, [pixels for _, pixels in sound], deadline, spent)
                shares = [_split(model, row) for row in rows] if model.typical else []
                answers, typicality = [best(model, row) for row in rows], shares
            finally:
                self._metrics.images(model.name, model.version, answers, spent, typicality)
        if shadow is not None:
            self._offer(model, shadow, [label for label, _ in answers], sound)
        names: Sequence[str] = [""] * len(rows)
        if ids:
            names = self._feedback.signer.sign(model.name, model.version, answers)
            if self._feedback.images.share:
                self._feedback.keep(model, [image for image, _ in sound], names)
        typical: Sequence[float | None] = typicality or [None] * len(rows)
        found = (
            Prediction(row, label, confidence, name, share)
            for row, (label, confidence), name, share in zip(
                rows, answers, names, typical, strict=True
            )
        )
        return [each if isinstance(each, ServingError) else next(found) for each in decoded]

    async def _rows(
        self, model: Model, pixels: Sequence[NDArray[np.uint8]], deadline: float, spent: Spent
    ) -> list[list[float]]:
        if not pixels:
            return []
        stacked = np.stack(pixels)
        found = await self.batcher.predict(model, stacked, deadline=deadline, spent=spent)
        rows: list[list[float]] = found.tolist()
        return rows

    def _offer(
        self,
        model: Model,
        shadow: Model,
        labels: Sequence[str],
        sound: Sequence[tuple[Image, NDArray[np.uint8]]],
    ) -> None:
        """Mirror the images, unless they came as pixels and the shadow expects other pixels."""
        files = [image for image, _ in sound if isinstance(image, bytes)]
        if shadow.spec == model.spec or len(files) == len(sound):
            pixels = [each for _, each in sound]
            self._shadow.offer(model, shadow, labels, pixels=pixels, files=files)


def _split(model: Model, row: list[float]) -> float:
    """Remove the typicality from the end of a row, and return it.

    Raises:
        FloatingPointError: if it is not a share.
    """
    share = row.pop()
    if not 0 <= share <= 1:
        raise FloatingPointError(f"{model} returned an invalid typicality.")
    return share


def best(model: Model, row: Sequence[float]) -> tuple[str, float]:
    """Return the label of the highest probability in a row, and that probability.

    Raises:
        FloatingPointError: if that is not a probability, or another value in the row is not finite.
    """
    highest = max(row)
    if not (0 <= highest <= 1 + ROUNDING and math.isfinite(sum(row))):
        raise FloatingPointError(f"{model} returned an invalid probability.")
    return model.labels[row.index(highest)], highest
