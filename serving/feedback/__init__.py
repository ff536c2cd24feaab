"""Prediction ids, the labels that come back, and the quality computed from them.

May import errors, settings, monitoring and inference; holds SQLAlchemy.
"""
