"""How well the service knows its own accuracy, and what that costs.

Imports the rig, reporting, clients, and the halves that it measures.
"""
