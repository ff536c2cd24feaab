"""The serving half: turn a published ONNX file into HTTP answers.

Knows the contract in ``models/README.md``; knows nothing of training, of Keras or of TensorFlow.
"""

__version__ = "0.1.0"  # that of pyproject.toml, which an image does not hold
