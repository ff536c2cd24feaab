"""Publication of a finished run: convert, judge, quantise, describe, rename into place.

May import errors, lock, data, modelling, recipes, evaluation and fitting.
"""
