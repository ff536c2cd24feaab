"""The handlers of all routes, without a web framework.

May import errors, settings, monitoring, inference and feedback; knows neither Flask nor sockets.
"""
