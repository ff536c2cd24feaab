"""From the bytes of an image file to the pixels that a model expects.

May import errors; holds every decoder and Pillow.
"""
