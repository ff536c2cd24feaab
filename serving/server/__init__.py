"""Processes and sockets: gunicorn's master, its workers and their event loops.

May import every other folder; nothing but `serving.__main__` imports it.
"""
