"""Recipes and networks as Keras builds them: layers, augmentation, schedules, initial weights.

May import errors alone; runs on every Keras backend.
"""
