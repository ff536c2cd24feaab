"""Recipes: one page each; the file name is the registry."""
