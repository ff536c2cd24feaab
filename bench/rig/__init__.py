"""Start the service and what stands around it: nginx, PostgreSQL, Prometheus, replicas.

May import nothing else of this package.
"""
