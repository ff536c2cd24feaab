"""Parts of networks that several recipes share.

Knows ``keras.ops`` only; knows nothing of any recipe.
"""

import keras

from training.modelling.recipe import Tensor


def standardized(image: Tensor) -> Tensor:
    """Scale each image of its own to zero mean and unit variance over all pixels and channels, so
    that neither brightness nor contrast matters; noise below some 5 levels is not amplified.

    Takes 0-255 of any type, ``(N, H, W, C)``; returns float32. As TensorFlow's
    ``per_image_standardization``, with another bound.
    """
    pixels = keras.ops.cast(image, "float32")
    mean = keras.ops.mean(pixels, axis=(1, 2, 3), keepdims=True)
    centred = pixels - mean
    variance = keras.ops.mean(keras.ops.square(centred), axis=(1, 2, 3), keepdims=True)
    return centred / keras.ops.sqrt(variance + 25.0)
