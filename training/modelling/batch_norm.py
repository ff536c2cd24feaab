"""Batch normalisation by TensorFlow's fused kernel, a drop-in for Keras' own layer.

Keras' layer casts to float32 and runs about ten operations, each over the whole tensor. Knows
TensorFlow, beside ``publishing.to_onnx``; knows nothing of networks.
"""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="training")
class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras' layer with the same weights, moving averages and results, computed by one kernel where
    that applies: TensorFlow, 4-D inputs normalised over the last axis, no mask, no
    renormalisation, no synchronisation of replicas.

    Inference in float32 is left to Keras: converters fold its product and sum into the convolution
    before it, but leave the kernel behind a pooling layer as a node that int8 cannot represent.

    The class has the name of Keras' own because weight files are keyed by class names.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise ``(N, H, W, C)``, float32 or half precision; statistics are float32."""
        batch = bool(training and self.trainable)
        if not self._fuses(inputs, mask, batch=batch):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        constant = tf.zeros_like(self.moving_mean)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma if self.scale else constant + 1,
            offset=self.beta if self.center else constant,
            mean=constant[:0] if batch else self.moving_mean,
            variance=constant[:0] if batch else self.moving_variance,
            epsilon=self.epsilon,  # tf.nn's wrapper would raise it to 1.001e-5
            is_training=batch,
        )
        if batch:
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
            biased = variance * ((count - 1) / count)  # the kernel returns Bessel's estimate
            for average, value in ((self.moving_mean, mean), (self.moving_variance, biased)):
                average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs

    def _fuses(self, inputs: Any, mask: Any, *, batch: bool) -> bool:
        kinds = ("bfloat16", "float16", "float32") if batch else ("bfloat16", "float16")
        return (
            keras.backend.backend() == "tensorflow"
            and keras.backend.standardize_dtype(inputs.dtype) in kinds
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and mask is None
            and not (self.renorm or self.synchronized)
        )
