"""The serving half: turn a published ONNX file into HTTP answers.

Knows the contract in ``models/README.md``; knows nothing of training, of Keras or of TensorFlow.
"""
