"""Start the service and what stands around it: nginx, PostgreSQL, Prometheus, replicas.

Imports no other folder of this package.
"""
