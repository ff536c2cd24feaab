"""From a finished run to a published version.

May import everything but the commands.
"""
