"""The commands of ``python -m training``.

May import every other folder; nothing but ``training.__main__`` imports it.
"""
