"""Data sets: downloaded, read, checked and split.

May import errors and lock.
"""
