"""The training half: turn a recipe and a data set into one published, self-describing ONNX file.

Knows the contract in ``models/README.md``; knows nothing of the HTTP service but its address.
"""
