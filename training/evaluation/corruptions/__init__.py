"""Corruptions of test images: MNIST-C, a subset of CIFAR-10-C, and the same kinds for pets.

Knows NumPy and, for two kinds, Pillow; knows nothing of models, files or training. Each image has
a random generator of its own, so that its corruption depends on neither batch nor order. Constants
and formulas are those of Mu & Gilmer, *MNIST-C*, 2019 (google-research/mnist-c), and Hendrycks &
Dietterich, *Benchmarking neural network robustness to common corruptions and perturbations*, 2019
(hendrycks/robustness); `docs/training.md` lists the differences.
"""
