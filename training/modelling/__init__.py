"""What a recipe can use: layers, schedules, initializers, and the recipe itself.

May import errors.
"""
