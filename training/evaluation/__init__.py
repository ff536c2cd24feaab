"""How right a model is, how sure, and what it costs.

May import errors, lock, data, modelling and recipes.
"""
