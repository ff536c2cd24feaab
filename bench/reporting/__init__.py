"""Figures, promises, pictures, and the tables of the documentation.

Imports the rig alone.
"""
