"""Prediction ids, the labels sent back for them, and the quality computed from those labels.

May import errors, settings, monitoring and inference; the only folder that imports SQLAlchemy.
"""
