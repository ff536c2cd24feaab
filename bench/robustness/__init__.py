"""What load, faults and hostile input do to the service.

May import the rig, reporting and clients.
"""
