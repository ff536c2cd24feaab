"""The benchmark of each data set: its kinds of corruption, and the constants of each severity.

Data, and the function that applies one. The names are data too: training uses none of these kinds
but the geometry.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.corruptions import blur, digital, geometry, noise, strokes, weather
from training.evaluation.corruptions.draws import Draws, Floats

Levels = tuple[tuple[float, ...], ...]  # the arguments of each severity

GEOMETRY = ("shear", "scale", "rotate", "translate")  # what digits are trained with
PETS_SIDE = 64  # of Tiny-ImageNet-C, whose constants photographs of other sizes scale


@dataclass(frozen=True)
class Kind:
    """One kind of corruption, and the arguments of its severities, from 1."""

    name: str
    distort: Callable[..., Floats]
    levels: Levels

    def apply(
        self, images: NDArray[np.uint8], severity: int, *, first: int = 0
    ) -> NDArray[np.uint8]:
        """Corrupt images ``(N, H, W, C)``, of which the first is number ``first`` of its split."""
        draws = Draws(self.name, severity, first=first, count=len(images))
        x = images.astype(np.float32) / np.float32(255)
        out = self.distort(x, draws, *self.levels[severity - 1])
        # Cut off like the published sets, beyond the rounding of float32.
        return (np.clip(out, 0, 1) * np.float32(255) + np.float32(1e-3)).astype(np.uint8)


@dataclass(frozen=True)
class Benchmark:
    """The kinds that a data set is scored by."""

    title: str
    kinds: tuple[Kind, ...]


def find(dataset: str, side: int) -> Benchmark | None:
    """Return the benchmark of a data set, for images of ``side`` pixels; None if it has none."""
    if dataset == "mnist":
        return Benchmark("MNIST-C", MNIST)
    if dataset == "cifar10":
        return Benchmark("CIFAR-10-C without frost", CIFAR10)
    if dataset == "cats_vs_dogs":
        return Benchmark(f"Tiny-ImageNet-C without frost, scaled to {side} pixels", pets(side))
    return None


MNIST: tuple[Kind, ...] = (  # each at the one severity of MNIST-C
    Kind("shot_noise", noise.shot_noise, ((3,),)),
    Kind("impulse_noise", noise.impulse_noise, ((0.17,),)),
    Kind("glass_blur", blur.glass_blur, ((0.7, 1, 2),)),
    Kind("motion_blur", blur.motion_blur, ((10, 3),)),
    Kind("shear", geometry.shear, ((0.4,),)),
    Kind("scale", geometry.scale, ((0.7,),)),
    Kind("rotate", geometry.rotate, ((0.4,),)),
    Kind("brightness", weather.brightness, ((0.5,),)),
    Kind("translate", geometry.translate, ((3,),)),
    Kind("stripe", strokes.stripe, ((),)),
    Kind("fog", weather.fog, ((3, 1.4),)),
    Kind("spatter", weather.spatter, ((0.65, 0.3, 1, 0.65, 1.5),)),
    Kind("dotted_line", strokes.dotted_line, ((),)),
    Kind("zigzag", strokes.zigzag, ((),)),
    Kind("canny_edges", strokes.canny_edges, ((),)),
)

_PHOTOGRAPHS: dict[str, Callable[..., Floats]] = {
    "gaussian_noise": noise.gaussian_noise,  # standard deviation
    "shot_noise": noise.shot_noise,  # photons of white
    "impulse_noise": noise.impulse_noise,  # share
    "defocus_blur": blur.defocus_blur,  # radius, softness
    "glass_blur": blur.glass_blur,  # standard deviation, reach, rounds
    "motion_blur": blur.motion_blur,  # radius, standard deviation
    "zoom_blur": blur.zoom_blur,  # end and step of the factors
    "snow": weather.snow,  # mean, deviation, zoom, threshold, radius, deviation, kept
    "fog": weather.fog,  # density, decay
    "brightness": weather.brightness,  # added
    "contrast": digital.contrast,  # kept
    "elastic_transform": digital.elastic_transform,  # strength, smoothing, shift
    "pixelate": digital.pixelate,  # share of the side
    "jpeg_compression": digital.jpeg_compression,  # quality
}
PHOTOGRAPHS = tuple(_PHOTOGRAPHS)


def _each(*values: float) -> Levels:
    return tuple((value,) for value in values)


def _kinds(levels: dict[str, Levels]) -> tuple[Kind, ...]:
    return tuple(Kind(name, _PHOTOGRAPHS[name], levels[name]) for name in PHOTOGRAPHS)


_ZOOM = tuple((1 + end / 100, 0.01) for end in (6, 11, 16, 21, 26))

CIFAR10 = _kinds(
    {
        "gaussian_noise": _each(0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": _each(500, 250, 100, 75, 50),
        "impulse_noise": _each(0.01, 0.02, 0.03, 0.05, 0.07),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom_blur": _ZOOM,
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": _each(0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": _each(0.75, 0.5, 0.4, 0.3, 0.15),
        "elastic_transform": (
            (0, 0, 32 * 0.08),
            (32 * 0.05, 32 * 0.2, 32 * 0.07),
            (32 * 0.08, 32 * 0.06, 32 * 0.06),
            (32 * 0.1, 32 * 0.04, 32 * 0.05),
            (32 * 0.1, 32 * 0.03, 32 * 0.03),
        ),
        "pixelate": _each(0.95, 0.9, 0.85, 0.75, 0.65),
        "jpeg_compression": _each(80, 65, 58, 50, 40),
    }
)


def pets(side: int) -> tuple[Kind, ...]:
    """Return the constants of Tiny-ImageNet-C, all lengths multiplied by ``side / 64``.

    Lengths are radii, standard deviations and reaches of blurs, the size of flakes and the shifts
    of the elastic transform; the strength of its noise grows by the square, because noise that is
    smoothed over more pixels is weaker.
    """
    s = side / PETS_SIDE
    glass = ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2))
    snow = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
    )
    elastic = (
        *((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03)),
        (0.16, 0.03, 0.02),
    )
    return _kinds(
        {
            "gaussian_noise": _each(0.04, 0.08, 0.12, 0.15, 0.18),
            "shot_noise": _each(250, 100, 50, 30, 15),
            "impulse_noise": _each(0.01, 0.02, 0.05, 0.08, 0.14),
            "defocus_blur": tuple(
                (radius * s, alias)
                for radius, alias in ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1))
            ),
            "glass_blur": tuple((each * s, max(round(far * s), 1), n) for each, far, n in glass),
            "motion_blur": tuple(
                (radius * s, sigma * s)
                for radius, sigma in ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3))
            ),
            "zoom_blur": _ZOOM,
            "snow": tuple(
                (mean, deviation, max(zoom * s, 1), threshold, radius * s, sigma * s, kept)
                for mean, deviation, zoom, threshold, radius, sigma, kept in snow
            ),
            "fog": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
            "brightness": _each(0.1, 0.2, 0.3, 0.4, 0.5),
            "contrast": _each(0.4, 0.3, 0.2, 0.1, 0.05),
            "elastic_transform": tuple(
                (strength * side * s, sigma * side, shift * side)
                for strength, sigma, shift in elastic
            ),
            "pixelate": _each(0.9, 0.8, 0.7, 0.6, 0.5),
            "jpeg_compression": _each(65, 58, 50, 40, 25),
        }
    )
