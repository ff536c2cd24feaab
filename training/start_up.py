"""Import Keras without the lines that TensorFlow's libraries write while they load.

Knows their form; imports nothing of this package.
"""

import os
import re
import sys
import tempfile

# Information that is written before any level of logging applies; errors are kept.
NOISE = re.compile(rb"WARNING: All log messages before absl::InitializeLog|I0000 00:00:")


def import_keras() -> None:
    """Import Keras and its backend, as a later import would; pass on other lines that are written
    to stderr meanwhile."""
    if "keras" in sys.modules:
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            import keras  # noqa: F401
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not NOISE.match(line):
                    os.write(2, line)
