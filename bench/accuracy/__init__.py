"""What the service knows of its own accuracy, and what that costs.

May import the rig, reporting and clients.
"""
