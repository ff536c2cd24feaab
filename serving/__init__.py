"""The serving half: load published ONNX files and answer HTTP requests with their predictions.

Knows the contract in ``models/README.md``; knows nothing of training, Keras or TensorFlow.
"""

__version__ = "0.2.0"  # stated here alone: pyproject.toml reads it, and an image holds no metadata
