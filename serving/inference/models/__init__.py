"""Published versions: found, loaded, tested, routed and reloaded.

May import errors, cpus, settings, monitoring and images; holds onnxruntime.
"""
