"""``python -m serving tune``: measure on this machine what other settings of the engine would gain.

Knows versions, how they are loaded and how they run; knows nothing of HTTP. Each setting is
compared with what is set now, in turns, so that what else the machine does meets both; a worker is
a thread here, as inference runs outside of Python's lock.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path, PurePosixPath
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from serving.errors import ModelError
from serving.inference.models.model import FILES, Model, load
from serving.cpus import cores
from serving.inference.models.session import LEVELS, OFFLINE, Options, session
from serving.settings import PREFIX, Settings
from serving.inference.models.published import scan

ROUNDS = 5
BATCHES = (1, 8)  # images at once, with which settings are compared
SIZES = (1, 2, 4, 8, 16)  # and those that are told
LEAST = 1.05  # less is no gain, however steady


@dataclass(frozen=True)
class Way:
    """A way to run: the setting that leads to it, and what it means."""

    setting: str
    options: Options
    workers: int


@dataclass(frozen=True)
class Offline:
    """What it saves to load a graph that was optimised before: seconds, and its speed."""

    model: str
    now: float
    then: float
    gain: float


@dataclass(frozen=True)
class Compared:
    """Images a second of one model, round by round."""

    model: str
    setting: str
    batch: int
    now: tuple[float, ...]
    then: tuple[float, ...]

    @property
    def gain(self) -> float:
        """How many times faster the setting makes it."""
        return median(self.then) / median(self.now)

    @property
    def verdict(self) -> int:
        """1 where it is faster, -1 where slower, 0 where the rounds overlap or little is between
        them."""
        if self.gain >= LEAST and min(self.then) > max(self.now):
            return 1
        if self.gain <= 1 / LEAST and max(self.then) < min(self.now):
            return -1
        return 0


def tune(settings: Settings, *, seconds: float) -> str:
    """What was measured, in some ``seconds``, and which settings it speaks for.

    Raises:
        ModelError: nothing is published, or a version is broken.
    """
    folders = _highest(settings.models)
    now, others = _ways(settings)
    slices = len(folders) * ROUNDS * (len(others) * len(BATCHES) * 2 + len(SIZES) + 2)
    compared: list[Compared] = []
    offline: list[Offline] = []
    sizes: dict[str, list[float]] = {}
    for folder in folders:
        models = _loaded(folder, now)
        rates = [_rates([models], size, seconds / slices)[0] for size in SIZES]
        sizes[str(models[0])] = [median(each) for each in rates]
        offline.append(_offline(folder, models[0], now, seconds / slices))
        for way in _that_matter(folder, now, others):
            pair = [models, _loaded(folder, way)]
            for batch in BATCHES:
                rounds = _rates(pair, batch, seconds / slices)
                compared.append(Compared(str(models[0]), way.setting, batch, *rounds))
    return report(compared, sizes, offline)


def _highest(folder: Path) -> list[Path]:
    """The highest version of each model."""
    published = scan(folder)
    if published.wrong:
        raise ModelError(" ".join(published.wrong.values()))
    found = sorted(map(PurePosixPath, published.versions), key=lambda path: int(path.name))
    return [folder / path for path in {path.parent: path for path in found}.values()]


def _ways(settings: Settings) -> tuple[Way, list[Way]]:
    """How it runs now, and each way that differs in one setting."""
    options, processors = Options.of(settings), cores()
    values: dict[str, Iterable[Any]] = {
        "precision": FILES,
        "intra_threads": (1 << n for n in range(processors.bit_length())),
        "arena": ("on", "off"),
        "optimisation": LEVELS,
    }
    found = []
    for name, value in ((name, value) for name, each in values.items() for value in each):
        other = replace(settings, **{name: value})
        if Options.of(other) != options:
            workers = settings.workers or max(1, processors // other.intra_threads)
            found.append(Way(f"{PREFIX}{name.upper()}={value}", Options.of(other), workers))
    return Way("", options, settings.processes), found


def _that_matter(folder: Path, now: Way, others: Iterable[Way]) -> list[Way]:
    """Without those of precision where there is but one."""
    both, precision = (folder / FILES["int8"]).exists(), now.options.precision
    return [way for way in others if both or way.options.precision == precision]


def _loaded(folder: Path, way: Way) -> list[Model]:
    name, version = folder.parent.name, int(folder.name)
    return [
        load(folder, name=name, version=version, options=way.options)[0] for _ in range(way.workers)
    ]


def _offline(folder: Path, model: Model, way: Way, seconds: float) -> Offline:
    file, options = folder / FILES[model.precision], way.options
    before = replace(options, optimisation=OFFLINE)
    with TemporaryDirectory() as made:
        written = Path(made, file.name)
        session(file, options, written=written)
        then = Model(written, name=model.name, version=model.version, options=before)
        rounds = _rates([[model], [then]], 1, seconds)
        return Offline(
            str(model),
            min(_load_seconds(file, options) for _ in range(ROUNDS)),
            min(_load_seconds(written, before) for _ in range(ROUNDS)),
            median(rounds[1]) / median(rounds[0]),
        )


def _load_seconds(file: Path, options: Options) -> float:
    began = time.perf_counter()
    session(file, options)
    return time.perf_counter() - began


def _rates(ways: Sequence[Sequence[Model]], batch: int, seconds: float) -> list[tuple[float, ...]]:
    """For each way the images a second of every round; the ways take turns."""
    rounds = [[_rate(models, batch, seconds) for models in ways] for _ in range(ROUNDS)]
    return list(zip(*rounds, strict=True))


def _rate(models: Sequence[Model], batch: int, seconds: float) -> float:
    """Images a second of all workers together."""
    spec = models[0].spec
    images = np.zeros((batch, spec.height, spec.width, spec.channels), np.uint8)
    began = time.perf_counter()

    def run(model: Model) -> int:
        count = 0
        while count == 0 or time.perf_counter() < began + seconds:
            model.predict(images)
            count += batch
        return count

    with ThreadPoolExecutor(len(models)) as threads:
        return sum(threads.map(run, models)) / (time.perf_counter() - began)


def report(
    compared: Sequence[Compared], sizes: dict[str, list[float]], offline: Sequence[Offline]
) -> str:
    """All tables, and the settings that the first of them speaks for."""
    lines = ["| Model | Setting | Images at once | Now, images/s | With it | Times |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {each.model} | `{each.setting}` | {each.batch} | {median(each.now):,.0f} "
        f"| {median(each.then):,.0f} | {each.gain:.2f}{('', ' faster', ' slower')[each.verdict]} |"
        for each in compared
    ]
    lines += ["", f"| Model, images/s by images at once | {' | '.join(map(str, SIZES))} |"]
    lines += [f"| --- |{' ---: |' * len(SIZES)}"]
    lines += [
        f"| {model} | {' | '.join(f'{rate:,.0f}' for rate in rates)} |"
        for model, rates in sizes.items()
    ]
    lines += ["", "| Graph | Loaded in, ms | Optimised before, ms | Then faster, times |"]
    lines += ["| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {each.model} | {each.now * 1000:.1f} | {each.then * 1000:.1f} | {each.gain:.2f} |"
        for each in offline
    ]
    told = advice(compared)
    lines += ["", *(told or ["Nothing beats what is set now by more than the noise."])]
    return "\n".join(lines)


def advice(compared: Iterable[Compared]) -> list[str]:
    """The settings that make some model faster and none slower; of one setting, the best value."""
    by_setting: dict[str, list[Compared]] = {}
    for each in compared:
        by_setting.setdefault(each.setting, []).append(each)
    best: dict[str, tuple[float, str]] = {}
    for setting, results in by_setting.items():
        verdicts = [each.verdict for each in results]
        if max(verdicts) > 0 <= min(verdicts):
            name = setting.partition("=")[0]
            gain = prod(each.gain for each in results) ** (1 / len(results))
            best[name] = max(best.get(name, (0.0, "")), (gain, setting))
    return [setting for _, setting in best.values()]
