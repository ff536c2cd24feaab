import re
from collections import Counter

import keras
import numpy as np
import pytest

from training import recipes
from training.data.sources import SOURCES
from training.errors import UsageError
from training.evaluation.corruptions import sets
from training.modelling.network import build
from training.modelling.recipe import Recipe

RECIPES = [recipes.find(name) for name in recipes.names()]
every_recipe = pytest.mark.parametrize("entry", RECIPES, ids=lambda entry: entry.name)


@every_recipe
def test_a_recipe_has_the_name_of_its_module(entry: Recipe) -> None:
    assert entry.name in recipes.names()
    assert recipes.find(entry.name) is entry


@every_recipe
def test_a_network_returns_a_logit_for_each_class_or_one_score(entry: Recipe) -> None:
    classes = len(SOURCES[entry.dataset].labels)
    logits = build(entry, classes)(np.zeros((2, *entry.shape), np.uint8))
    assert logits.shape == (2, classes if entry.gives_classes else 1)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"


@every_recipe
def test_the_header_of_a_recipe_has_its_measured_results(entry: Recipe) -> None:
    measured, difference = entry.header("Measured"), entry.header("Difference")
    images, minutes = r"\d+\.\d+ % of the [\d,]+ test images", r"\d+(\.\d+)? minutes"
    assert re.match(rf"{images}, seed 1, in {minutes} on ", measured)
    command = "reproduce" if difference else "train"
    assert f"python -m training {command} {entry.name}" in measured
    assert "not measured" not in difference


def test_each_model_has_one_recommended_recipe() -> None:
    recommended = Counter(entry.model for entry in RECIPES if entry.recommended)
    assert recommended == dict.fromkeys({entry.model for entry in RECIPES}, 1)


def test_a_model_name_finds_its_recommended_recipe() -> None:
    for name in {entry.model for entry in RECIPES}:
        assert recipes.find(name).recommended


def test_an_unknown_name_is_reported_with_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match=r"No recipe or model named 'dogs'\. Known recipes: cats_v"
    ):
        recipes.find("dogs")


def test_the_cifar10_network_has_the_published_number_of_weights() -> None:
    assert build(recipes.find("cifar10_sixconv"), 10).count_params() == 276_138


def test_the_stem_of_cifar10_whitens_at_first() -> None:
    entry = recipes.find("cifar10")
    network = build(entry, 10)
    assert entry.prepare is not None
    entry.prepare(network, np.random.default_rng(1).integers(0, 256, (9, 32, 32, 3), np.uint8))
    stem = network.get_layer("whitening")
    (kernel,) = stem.get_weights()
    np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])


# What training may change in an image; the benchmark of corruptions scores none of these.
AUGMENTATIONS = {"RandomFlip", "AlternatingFlip", "RandomResizedCrop", "RandomShift", "Cutout"}
DISTORTIONS = {"RandomFilter", "StructuredNoise", "RandomTone", "Solarize", "Negative", "Posterize"}
GEOMETRY = {"RandomAffine"}  # of which MNIST-C has four kinds, a row of their own


@every_recipe
def test_no_recipe_trains_on_a_kind_that_is_scored(entry: Recipe) -> None:
    trained = {type(layer).__name__ for layer in entry.augment()}
    assert trained <= AUGMENTATIONS | DISTORTIONS | GEOMETRY
    benchmark = sets.find(entry.dataset, entry.size[0])
    assert benchmark is not None
    scored = {kind.name.replace("_", "").casefold() for kind in benchmark.kinds}
    assert not scored & {name.removeprefix("Random").casefold() for name in trained}
