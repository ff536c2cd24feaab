"""Clients of the service: load, probes, labels, well and badly behaved.

May import the rig and reporting.
"""
