from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from training.evaluation.scoring import probabilities
from training.modelling.batch_norm import BatchNormalization
from training.publishing import to_onnx

OWN = keras.layers.BatchNormalization
SHAPE = (6, 5, 4, 3)
TERMS = [
    pytest.param({"center": center, "scale": scale}, id=f"center={center},scale={scale}")
    for center in (True, False)
    for scale in (True, False)
]
PRECISIONS = pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 2e-6), ("mixed_bfloat16", 2e-2)]
)

Floats = NDArray[np.float32]


def inputs(shape: tuple[int, ...] = SHAPE, *, seed: int = 1) -> Floats:
    values = np.random.default_rng(seed).normal(1.5, 2.0, shape).astype(np.float32)
    rounded: Floats = tf.cast(tf.cast(values, "bfloat16"), "float32").numpy()  # in any precision
    return rounded


def pair(shape: tuple[int, ...] = SHAPE, **options: Any) -> list[keras.layers.Layer]:
    """Return Keras' layer and ours with the same weights, none of them trivial."""
    layers = [kind(**options) for kind in (OWN, BatchNormalization)]
    rng = np.random.default_rng(2)
    for layer in layers:
        layer.build(shape)
    for own, ours in zip(layers[0].weights, layers[1].weights, strict=True):
        own.assign(rng.uniform(0.5, 2, own.shape))
        ours.assign(own)
    return layers


def gradients(layer: keras.layers.Layer, x: Floats) -> list[Floats]:
    """Return the gradients, as float32, of a weighted sum of outputs, by inputs and weights."""
    given = tf.cast(x, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(given)
        output = tf.cast(layer(given, training=True), "float32")
        loss = tf.reduce_sum(output * inputs(x.shape, seed=3))
    sources = [given, *(each.value for each in layer.trainable_variables)]
    return [tf.cast(each, "float32").numpy() for each in tape.gradient(loss, sources)]


def close(found: Any, expected: Any, tolerance: float) -> None:
    """Compare to a tolerance relative to the largest number."""
    found, expected = (keras.ops.convert_to_numpy(each).astype(float) for each in (found, expected))
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max(), rtol=0)


def kernels(layer: keras.layers.Layer, shape: tuple[int, ...], *, training: bool) -> int:
    """Count the fused kernels in the graph of a layer."""
    spec = tf.TensorSpec((None, *shape[1:]), layer.compute_dtype)
    graph = tf.function(lambda x: layer(x, training=training)).get_concrete_function(spec).graph
    return sum(each.type == "FusedBatchNormV3" for each in graph.get_operations())


@PRECISIONS
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("terms", TERMS)
def test_outputs_equal_those_of_keras(
    terms: dict[str, Any], training: bool, precision: str, tolerance: float
) -> None:
    own, ours = pair(**terms, dtype=precision, epsilon=1e-5)
    expected, found = (layer(inputs(), training=training) for layer in (own, ours))
    assert found.dtype == expected.dtype == own.compute_dtype
    close(found, expected, tolerance)


@PRECISIONS
@pytest.mark.parametrize("terms", TERMS)
def test_gradients_equal_those_of_keras(
    terms: dict[str, Any], precision: str, tolerance: float
) -> None:
    expected, found = (gradients(each, inputs()) for each in pair(**terms, dtype=precision))
    assert len(found) == 1 + sum(terms.values())
    for one, other in zip(found, expected, strict=True):
        close(one, other, 5 * tolerance)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_moving_statistics_follow_the_biased_variance_as_in_keras(precision: str) -> None:
    layers = pair(momentum=0.6, dtype=precision)
    for step in range(5):
        for layer in layers:
            layer(inputs(seed=step), training=True)
    own, ours = layers
    np.testing.assert_allclose(ours.moving_mean, own.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, own.moving_variance, rtol=1e-5)


def test_a_frozen_layer_keeps_its_statistics() -> None:
    layers = pair(dtype="mixed_bfloat16")
    before = [each.numpy() for each in layers[1].weights]
    for layer in layers:
        layer.trainable = False
    expected, found = (layer(inputs(), training=True) for layer in layers)
    close(found, expected, 2e-2)
    np.testing.assert_array_equal([each.numpy() for each in layers[1].weights], before)


def test_one_value_of_each_channel_has_no_variance() -> None:
    own, ours = pair((1, 1, 1, 3))
    for layer in (own, ours):
        layer(inputs((1, 1, 1, 3)), training=True)
    np.testing.assert_allclose(ours.moving_variance, own.moving_variance, rtol=1e-6)


@pytest.mark.parametrize(
    ("precision", "training"),
    [("float32", True), ("mixed_bfloat16", True), ("mixed_bfloat16", False)],
)
def test_the_kernel_is_used(precision: str, training: bool) -> None:
    _, ours = pair(dtype=precision)
    assert kernels(ours, SHAPE, training=training) == 1


@pytest.mark.parametrize(
    ("shape", "options", "training"),
    [
        pytest.param(SHAPE, {}, False, id="inference in float32"),
        pytest.param((6, 3), {}, True, id="rank 2"),
        pytest.param((6, 4, 3), {}, True, id="rank 3"),
        pytest.param(SHAPE, {"axis": 1}, True, id="another axis"),
        pytest.param(SHAPE, {"renorm": True}, True, id="renormalisation"),
        pytest.param(SHAPE, {"dtype": "float64"}, True, id="float64"),
    ],
)
def test_what_the_kernel_cannot_do_is_left_to_keras(
    shape: tuple[int, ...], options: dict[str, Any], training: bool
) -> None:
    own, ours = pair(shape, **options)
    assert kernels(ours, shape, training=training) == 0
    expected, found = (layer(inputs(shape), training=training) for layer in (own, ours))
    np.testing.assert_array_equal(found, expected)
    for one, other in zip(ours.weights, own.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_masked_inputs_are_left_to_keras() -> None:
    mask = np.arange(6 * 5 * 4).reshape(6, 5, 4) % 3 > 0
    expected, found = (layer(inputs(), training=True, mask=mask) for layer in pair())
    np.testing.assert_array_equal(found, expected)


def test_another_backend_is_left_to_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert kernels(ours, SHAPE, training=True) == 0


def network(layer: Callable[..., Any]) -> keras.Model:
    """Return a classifier of 8×8 images; one of its convolutions is pooled before the layer."""
    keras.utils.set_random_seed(4)
    image = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.ReLU()(layer()(keras.layers.Conv2D(4, 3, use_bias=False)(x)))
    x = keras.layers.MaxPooling2D(2)(keras.layers.Conv2D(5, 3, padding="same")(x))
    x = keras.layers.Flatten()(layer(scale=False)(x))
    return keras.Model(image, keras.layers.Dense(2, dtype="float32")(x))


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_weights_saved_with_keras_own_layer_load(tmp_path: Path) -> None:
    own, ours = network(OWN), network(BatchNormalization)
    own(images(16), training=True)  # moves the statistics
    own.save_weights(tmp_path / "old.weights.h5")
    ours.load_weights(tmp_path / "old.weights.h5")
    assert [each.name for each in ours.weights] == [each.name for each in own.weights]
    for one, other in zip(ours.weights, own.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_saved_network_loads_with_this_layer(tmp_path: Path) -> None:
    network(BatchNormalization).save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert sum(type(each) is BatchNormalization for each in loaded.layers) == 2


def test_the_exported_file_is_that_of_keras_own_layer(tmp_path: Path) -> None:
    own, ours = network(OWN), network(BatchNormalization)
    own(images(16), training=True)
    ours.set_weights(own.get_weights())
    graphs = [to_onnx.convert(to_onnx.with_probabilities(each, 1.5)) for each in (own, ours)]
    kinds, kinds_of_ours = (Counter(node.op_type for node in each.graph.node) for each in graphs)
    assert kinds == kinds_of_ours
    for name, graph in zip(("own", "ours"), graphs, strict=True):
        onnx.save(graph, tmp_path / name)
    expected, found = (probabilities(tmp_path / name, images(64)) for name in ("own", "ours"))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_training_takes_the_same_steps_as_with_keras_own_layer() -> None:
    models = [network(OWN), network(BatchNormalization)]
    for model in models:
        model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(True))
        model.fit(images(64), np.arange(64) % 2, batch_size=16, shuffle=False, verbose=0)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
