"""The published versions of each model: found, loaded, tested, routed and reloaded.

May import errors, cpus, settings, monitoring and images; holds onnxruntime.
"""
