"""How the service behaves under overload, faults and hostile input.

Imports the rig, reporting and clients.
"""
