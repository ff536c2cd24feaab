"""Data sets: fetched, read, checked and split.

May import errors and lock.
"""
