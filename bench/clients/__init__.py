"""Clients of the service, well and badly behaved: load, probes, labels, and what they send.

Imports the rig and reporting.
"""
