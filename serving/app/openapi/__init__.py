"""The OpenAPI 3.1 document.

May import what describes requests and answers: errors, settings, feedback and api.
"""
