"""Accuracy, calibration and cost of a model.

May import errors, lock, data, modelling and recipes.
"""
