"""Train a network: batches, checkpoints, signals, several hosts.

May import errors, lock, data, modelling, recipes and evaluation.
"""
