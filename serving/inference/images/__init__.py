"""Turn an image file into the pixels that a model expects.

May import errors alone; holds Pillow and every other decoder.
"""
