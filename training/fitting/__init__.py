"""Training of a network: batches, checkpoints, signals, several hosts, tracking.

May import errors, lock, data, modelling, recipes and evaluation.
"""
