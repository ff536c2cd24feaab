"""``python -m convserve``: the same as the command ``convserve``."""

import sys

from convserve.cli import main

if __name__ == "__main__":
    sys.exit(main())
