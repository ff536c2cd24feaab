"""The OpenAPI 3.1 document.

May import what requests and answers are made of: errors, settings, inference, feedback and api.
"""
