"""Turn a recipe and a data set into one published, self-describing ONNX file.

Knows the contract in ``models/README.md``; of the HTTP service it knows the address alone.
"""

import os

# onnxruntime's Linux build reports usage over the network; it reads this when it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
