"""Figures, promises, and the tables of the documentation.

May import the rig.
"""
