"""The forty-line script that everyone writes with Flask: a form, and a session with defaults.

``MODEL=models/digits/VERSION/model.onnx gunicorn --workers 2 bench.throughput.peers.flask_app:app``
"""

import json
import os

import numpy as np
import onnxruntime
from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue
from PIL import Image

app = Flask(__name__)
session = onnxruntime.InferenceSession(os.environ["MODEL"])
labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
_, height, width, channels = session.get_inputs()[0].shape


@app.post("/predict/<name>")
def predict(name: str) -> ResponseReturnValue:
    """Classify one image."""
    if "image" not in request.files:
        return jsonify(error="no image"), 400
    try:
        opened = Image.open(request.files["image"].stream)
        image = opened.convert("L" if channels == 1 else "RGB")
    except OSError:
        return jsonify(error="not an image"), 400
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized).reshape(1, height, width, channels)
    row = session.run(None, {"image": pixels})[0][0]
    best = row.argsort()[::-1][:5]
    top = [{"label": labels[i], "probability": float(row[i])} for i in best]
    return jsonify(model=name, predictions=[{**top[0], "top": top}])
