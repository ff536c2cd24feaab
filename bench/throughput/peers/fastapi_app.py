"""What an engineer would write with FastAPI: a raw body, one onnxruntime thread, no spinning.

The inference runs in the view: for networks this small a thread costs more than it saves. The
view returns a ``JSONResponse``, which skips FastAPI's validation of the answer.

``MODEL=models/digits/VERSION/model.onnx uvicorn bench.throughput.peers.fastapi_app:app``
"""

import json
import os
from io import BytesIO

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from PIL import Image

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
_, height, width, channels = session.get_inputs()[0].shape
app = FastAPI()


@app.post("/predict/{name}")
async def predict(name: str, request: Request) -> JSONResponse:
    """Classify one image."""
    try:
        opened = Image.open(BytesIO(await request.body()))
        image = opened.convert("L" if channels == 1 else "RGB")
    except OSError as exc:
        raise HTTPException(400, "not an image") from exc
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized).reshape(1, height, width, channels)
    row = session.run(None, {"image": pixels})[0][0]
    best = row.argsort()[::-1][:5]
    top = [{"label": labels[i], "probability": float(row[i])} for i in best]
    return JSONResponse({"model": name, "predictions": [{**top[0], "top": top}]})
