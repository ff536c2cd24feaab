"""Measure performance, as ratios within one run; the tests assert no figure.

A folder imports what stands left of it: rig, reporting, clients, then throughput, robustness and
accuracy, which do not import each other. All may import `serving` and `training`.
"""
