"""How fast the service and training are, beside what a user would write instead.

Imports the rig, reporting, clients, and the halves that it measures.
"""
