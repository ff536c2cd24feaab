"""An HTTP/1.1 server engine on asyncio: a library of its own, see README.md.

May import ``serving.errors`` alone: nothing here knows what is served.
"""
