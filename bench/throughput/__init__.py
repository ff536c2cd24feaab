"""How fast the service and training are, beside what a user would write instead.

May import the rig, reporting and clients.
"""
