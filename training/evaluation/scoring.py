"""Judge a published file: its answers under onnxruntime, or those of a running service.

Knows onnxruntime and HTTP; knows nothing of Keras or of how the file came to be.
"""

import io
import json
import math
import random
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import requests
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.data.datasets import Dataset, Upload, load
from training.errors import ServiceFailed

onnxruntime.disable_telemetry_events()

CLIENTS = 8
BATCH = 256


@dataclass(frozen=True)
class Score:
    """How many of the images were answered right."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """The share that is right, 0-1."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The accuracies, 0-1, that 95 of 100 such test sets agree with (Wilson, 1927)."""
        z, n, p = 1.959964, self.images, self.accuracy
        middle, scale = p + z**2 / (2 * n), 1 + z**2 / n
        half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
        return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)

    def __str__(self) -> str:
        return f"{self.correct:,} of {self.images:,} right ({self.accuracy:.2%})"


def probabilities(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the exported file answers, ``(N, K)``, for uint8 ``(N, H, W, C)``."""
    session = _session(path)
    parts = np.array_split(images, max(len(images) // BATCH, 1))
    return np.concatenate([session.run(None, {"image": part})[0] for part in parts])


def file(path: Path, dataset: str, *, data_dir: Path) -> Score:
    """Score a published file on the test split of a data set."""
    return score(*on_test(path, dataset, data_dir=data_dir))


def on_test(
    path: Path, dataset: str, *, data_dir: Path
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What a published file answers to a test split, ``(N, K)``, and the labels ``(N,)``."""
    test = data_for(path, dataset, data_dir=data_dir).test
    return probabilities(path, test.images), test.labels


def data_for(path: Path, dataset: str, *, data_dir: Path) -> Dataset:
    """A data set at the size of image that a published file takes."""
    _, height, width, _ = _session(path).get_inputs()[0].shape
    return load(dataset, data_dir=data_dir, size=(height, width))


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def score(answers: NDArray[np.float32], labels: NDArray[np.int64]) -> Score:
    """Compare probabilities ``(N, K)`` with labels ``(N,)``."""
    return Score(int(np.sum(answers.argmax(axis=1) == labels)), len(labels))


def over_http(
    url: str, model: str, uploads: Iterable[Upload], *, version: int | None = None
) -> Score:
    """POST every file to ``<url>/predict/<model>`` over a few keep-alive connections and count the
    right answers.

    Raises:
        ServiceFailed: the service cannot be reached, or answers anything but 200.
    """
    local = threading.local()
    query = {} if version is None else {"version": version}

    def right(upload: Upload) -> bool:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.trust_env = False  # a proxy for the internet is none for the service
        label = _post(local.session, f"{url.rstrip('/')}/predict/{model}", query, upload)
        return bool(label == upload.label)

    with ThreadPoolExecutor(CLIENTS) as pool:
        results = list(pool.map(right, uploads))
    return Score(sum(results), len(results))


def _post(session: requests.Session, url: str, query: dict[str, int], upload: Upload) -> Any:
    headers = {"Content-Type": upload.content_type}
    try:
        answer = session.post(url, params=query, data=upload.data, headers=headers, timeout=60)
    except requests.RequestException as exc:
        raise ServiceFailed(f"No answer from {url}: {exc}") from exc
    if answer.status_code != 200:
        raise ServiceFailed(
            f"{url} answered {answer.status_code} to {upload.filename}: {answer.text[:300]}"
        )
    try:
        return json.loads(answer.content)["predictions"][0]["label"]
    except (ValueError, LookupError, TypeError) as exc:
        raise ServiceFailed(f"{url} gave no prediction: {answer.text[:300]}") from exc


def photographed(uploads: Iterable[Upload], *, seed: int = 1) -> Iterator[Upload]:
    """Digits as people send them: dark on light, at a random place of 200×150, scaled 1-6 times, as
    JPEG of quality 85."""
    rng = random.Random(seed)
    for upload in uploads:
        digit = ImageOps.invert(Image.open(io.BytesIO(upload.data)))
        page = Image.new("L", (200, 150), 255)
        page.paste(digit, (rng.randint(0, 200 - digit.width), rng.randint(0, 150 - digit.height)))
        scale = rng.uniform(1, 6)
        size = round(page.width * scale), round(page.height * scale)
        target = io.BytesIO()
        page.resize(size, Image.Resampling.BICUBIC).save(target, "JPEG", quality=85)
        yield replace(upload, data=target.getvalue(), content_type="image/jpeg")
