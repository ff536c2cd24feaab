"""An HTTP/1.1 engine on asyncio.

May import ``serving.errors`` alone: nothing here knows what is served.
"""
