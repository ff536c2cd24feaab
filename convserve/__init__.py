"""The command ``convserve``, which starts either half.

May start serving and training, each by its name; imports neither, and neither imports it.
"""
