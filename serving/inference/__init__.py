"""From images to probabilities: admission, batching, golden images and shadow traffic.

May import errors, cpus, settings and monitoring; knows nothing of HTTP.
"""
