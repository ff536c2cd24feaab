"""Cases of HTTP/1.1 framing, each with its clause, and the engine that must answer them alike
however their bytes are cut.

Run it with ``python -m bench.robustness.conformance.framing``.
"""
