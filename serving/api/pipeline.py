"""From a request to probabilities: the one way, whatever server, route and protocol brought it.

Knows uploads, pixels, models, admission and the batcher; knows no server, no framework and no
protocol. It runs in the worker's event loop: what is short runs there, what is long in a thread.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from serving.api import body as uploads
from serving.api.context import Call, counts
from serving.api.tensors import Wanted
from serving.errors import DeadlineExceeded, ServingError
from serving.inference.admission import Admission
from serving.inference.batcher import Batcher
from serving.inference.images.decoder import Decoded, Decoder, Image, Observe, Upload, check
from serving.inference.images.pixels import PixelSpec
from serving.inference.models.model import Model, best
from serving.inference.models.repository import Repository
from serving.inference.shadow import Shadow
from serving.monitoring.metrics import Metrics
from serving.settings import Settings

Asked = TypeVar("Asked", bound=Wanted)
Parsed = TypeVar("Parsed")
Rest = ParamSpec("Rest")

SHORT = 128 * 1024  # bytes of a body: to parse the dearest takes 3 ms


class Predictor:
    """Answers calls, in the event loop of one worker."""

    def __init__(
        self,
        settings: Settings,
        serves: Callable[[], Repository],
        admission: Admission,
        batcher: Batcher,
        metrics: Metrics,
    ) -> None:
        """``serves`` tells what is served at the moment."""
        self.serves, self._metrics = serves, metrics
        self.admission, self.batcher = admission, batcher
        self.limits = uploads.Limits(settings.max_body_bytes, settings.max_images)
        self._longest_ms = settings.timeout_ms
        self.decoder = Decoder(settings.max_pixels, processors=settings.processors)
        self._shadow = Shadow(serves, admission, metrics, self.decoder.read)

    async def predict(
        self, call: Call, parse: Callable[[bytes, PixelSpec, uploads.Limits], Asked]
    ) -> tuple[Model, Asked, list[list[float]]]:
        """The model that the path names, what ``parse`` finds in the body, and the probabilities of
        each of its images.

        Raises:
            ServingError: any of the tree. A bad image, too: the message says which.
        """
        model = self.model(**call.names, request_id=call.request_id)
        deadline, shadow = self.deadline(call), None
        data = await self.body(call, deadline)
        with self.admission.request(len(data)):
            asked = await self.parsed(data, deadline, parse, model.spec, self.limits)
            call.used(model)
            if call.names.keys() == {"name"}:
                shadow = self.serves().shadow(model, call.request_id)
            deadline = min(deadline, call.began + asked.seconds)
            rows = await self.rows(model, asked.images, deadline=deadline, shadow=shadow)
        return model, asked, rows

    async def rows(
        self,
        model: Model,
        given: Sequence[Image],
        *,
        deadline: float,
        shadow: Model | None = None,
    ) -> list[list[float]]:
        """Probabilities of each image, in their order, by a ``time.monotonic()``.

        Raises:
            ServingError: the queue is full, it is too late, or an image is bad.
        """
        with self._stages(model) as observe, self.admission.images(len(given)):
            decoded = await self.decoder.decode(
                given, model.spec, deadline=deadline, observe=observe
            )
            check(decoded)
            return await self._inferred(
                model, given, decoded, deadline=deadline, observe=observe, shadow=shadow
            )

    @property
    def in_threads(self) -> int:
        """Inferences and large images that threads work at."""
        return self.batcher.running + self.decoder.in_threads

    def model(
        self,
        name: str,
        version: str | None = None,
        label: str | None = None,
        *,
        request_id: str | None = None,
    ) -> Model:
        """The model that a path names; its version by number or by label, or the one of ``Call``'s
        id where there is neither.

        Raises:
            UnknownModel, UnknownVersion: nothing of that name is served.
        """
        wanted: int | str | None = version or label
        if version is not None and counts(version):
            wanted = int(version)
        return self.serves().get(name, wanted, request_id=request_id)

    def deadline(self, call: Call) -> float:
        """Until when a call must be answered, a ``time.monotonic()``."""
        return call.deadline(self._longest_ms)

    async def body(self, call: Call, deadline: float) -> bytes:
        """The whole body of a call, inflated if it was compressed."""
        data, encoding = await call.read(deadline), call.header("content-encoding")
        return data if encoding is None else await self._inflated(data, encoding, deadline)

    async def _inflated(self, data: bytes, encoding: str, deadline: float) -> bytes:
        """In a thread: a few bytes may become many."""
        with self.admission.receiving() as received:
            received(len(data))
            inflate = partial(uploads.inflated, data, encoding, self.limits.body_bytes)
            return await _in_thread(inflate, deadline)

    async def parsed(
        self,
        data: bytes,
        deadline: float,
        parse: Callable[Concatenate[bytes, Rest], Parsed],
        *rest: Rest.args,
        **named: Rest.kwargs,
    ) -> Parsed:
        """What ``parse`` finds in a body; in a thread where that takes long."""
        found = partial(parse, data, *rest, **named)
        return found() if len(data) <= SHORT else await _in_thread(found, deadline)

    async def each(
        self,
        model: Model,
        files: Sequence[Upload],
        *,
        deadline: float,
        shadow: Model | None = None,
    ) -> list[list[float] | ServingError]:
        """Probabilities for each upload, in their order.

        Of several, a bad image fails alone: its place holds the error. A single one raises, however
        it was sent: as a file, as a form of one part or as a JSON list of one.
        """
        with self._stages(model) as observe, self.admission.images(len(files)):
            decoded = await self.decoder.decode(
                files, model.spec, deadline=deadline, observe=observe
            )
            if len(files) == 1:
                check(decoded)
            rows = await self._inferred(
                model, files, decoded, deadline=deadline, observe=observe, shadow=shadow
            )
        answers = iter(rows)
        return [each if isinstance(each, ServingError) else next(answers) for each in decoded]

    async def _inferred(
        self,
        model: Model,
        given: Sequence[Image],
        decoded: Sequence[Decoded],
        *,
        deadline: float,
        observe: Observe,
        shadow: Model | None,
    ) -> list[list[float]]:
        """Probabilities for each image that could be decoded."""
        pixels = [each for each in decoded if not isinstance(each, ServingError)]
        if not pixels:
            return []
        rows: list[list[float]] = (
            await self.batcher.predict(model, np.stack(pixels), deadline=deadline, observe=observe)
        ).tolist()
        answers = [best(model, row) for row in rows]
        self._metrics.images(model.name, model.version, answers)
        if shadow is not None:
            files = [
                file
                for file, each in zip(given, decoded, strict=True)
                if isinstance(file, bytes) and not isinstance(each, ServingError)
            ]
            if shadow.spec == model.spec or len(files) == len(pixels):  # else it cannot read them
                labels = [label for label, _ in answers]
                self._shadow.offer(model, shadow, labels, pixels=pixels, files=files)
        return rows

    @contextmanager
    def _stages(self, model: Model) -> Iterator[Observe]:
        """Count each stage of a request once, with the sum of what was measured for it."""
        spent: defaultdict[str, float] = defaultdict(float)

        def observe(stage: str, seconds: float) -> None:
            spent[stage] += seconds

        try:
            yield observe
        finally:
            for stage, seconds in spent.items():
                self._metrics.stage(model.name, model.version, stage=stage, seconds=seconds)


async def _in_thread(work: Callable[[], Parsed], deadline: float) -> Parsed:
    try:
        async with asyncio.timeout_at(deadline):
            return await asyncio.to_thread(work)
    except TimeoutError:
        raise DeadlineExceeded("The deadline passed before the body was read.") from None
