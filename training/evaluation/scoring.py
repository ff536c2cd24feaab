"""Score a published file, by its answers under onnxruntime or by those of a running service.

Knows onnxruntime and HTTP; knows nothing of Keras or of how the file was made.
"""

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

from training.data import pixels
from training.data.datasets import Upload, load
from training.data.splits import Split
from training.errors import ServiceFailed

onnxruntime.disable_telemetry_events()

CLIENTS = 8
BATCH = 256


@dataclass(frozen=True)
class Score:
    """The number of images that were answered correctly."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        """The share of correct answers, 0-1."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy, 0-1 (Wilson, 1927)."""
        z, n, p = 1.959964, self.images, self.accuracy
        middle, scale = p + z**2 / (2 * n), 1 + z**2 / n
        half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
        return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)

    def __str__(self) -> str:
        return f"{self.correct:,} of {self.images:,} correct ({self.accuracy:.2%})"


def probabilities(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run an exported file on uint8 ``(N, H, W, C)``; return probabilities ``(N, K)``."""
    (found,) = run(path, images, "probabilities")
    return found


def run(path: Path, images: NDArray[np.uint8], *outputs: str) -> list[NDArray[np.float32]]:
    """Run an exported file on uint8 ``(N, H, W, C)``; return the outputs of these names."""
    session = _session(path)
    parts = np.array_split(images, max(len(images) // BATCH, 1))
    found = [session.run(outputs, {"image": part}) for part in parts]
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def typicality(
    path: Path, images: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run an exported file on uint8 ``(N, H, W, C)``; return its output ``typicality`` ``(N,)``, or
    the highest probability if it has none, and the probabilities ``(N, K)``."""
    names = [output.name for output in _session(path).get_outputs()]
    found = dict(zip(names, run(path, images, *names), strict=True))
    answers = found["probabilities"]
    return found.get("typicality", answers.max(axis=1)), answers


def on_test(
    path: Path, dataset: str, *, data_dir: Path
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return a file's probabilities on a test split, ``(N, K)``, and the labels ``(N,)``."""
    test = test_split(path, dataset, data_dir=data_dir)
    return probabilities(path, test.images), test.labels


def test_split(path: Path, dataset: str, *, data_dir: Path) -> Split:
    """Return a test split in the size of a file's input."""
    return load(dataset, data_dir=data_dir, size=size(path)).test


def size(path: Path) -> tuple[int, int]:
    """Return the height and width of a file's input, in pixels."""
    _, height, width, _ = _session(path).get_inputs()[0].shape
    return height, width


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def score(answers: NDArray[np.float32], labels: NDArray[np.int64]) -> Score:
    """Compare probabilities ``(N, K)`` with labels ``(N,)``."""
    return Score(int(np.sum(answers.argmax(axis=1) == labels)), len(labels))


def over_http(
    url: str, model: str, uploads: Iterable[Upload], *, version: int | None = None
) -> Score:
    """POST every file to ``<url>/predict/<model>`` over a few keep-alive connections and count the
    correct answers. Raise ``ServiceFailed`` if the service cannot be reached, or answers other than
    200."""
    local = threading.local()
    query = {} if version is None else {"version": version}

    def correct(upload: Upload) -> bool:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.trust_env = False  # no proxy of the environment
        label = _post(local.session, f"{url.rstrip('/')}/predict/{model}", query, upload)
        return bool(label == upload.label)

    with ThreadPoolExecutor(CLIENTS) as pool:
        results = list(pool.map(correct, uploads))
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
        raise ServiceFailed(f"{url} returned no prediction: {answer.text[:300]}") from exc


def photographed(uploads: Iterable[Upload], *, seed: int = 1) -> Iterator[Upload]:
    """Yield digits as people send them: see ``pixels.photograph``."""
    rng = random.Random(seed)
    for upload in uploads:
        yield replace(upload, data=pixels.photograph(upload.data, rng), content_type="image/jpeg")
