"""The routes of the other protocols in the OpenAPI document.

Knows the JSON of their handlers; knows nothing of Flask.
"""

from functools import partial
from typing import Any

from serving.api.openinference import SERVER
from serving.api.routes import HEAD
from serving.api.tfserving import SIGNATURE
from serving.app.openapi import schemas as parts
from serving.app.openapi.schemas import (
    BINARY,
    BYTES,
    JSON,
    OBJECT,
    POSITIVE,
    PREDICTION,
    SHARE,
    TEXT,
    TIMEOUT,
    UNKNOWN,
    UNREADY,
    Schema,
    content,
    listed,
    parameter,
    ref,
    structure,
)

get = partial(parts.get, shape="Sentence")
post = partial(parts.post, shape="Sentence")


def paths() -> dict[str, Any]:
    """Return the description of every route."""
    server = get("The server and its extensions.", ref("V2Server"))
    found: dict[str, Any] = {
        "/v2": server,
        "/v2/": server,
        "/v2/health/live": get("The process is alive.", ref("V2Live")),
        "/v2/health/ready": get("All models are ready.", ref("V2Live"), *UNREADY),
    }
    for which in ("", "version", "label"):
        path = "/models/{name}" + (f"/{which}s/{{{which}}}" if which else "")
        named = [parameter(each, "path", TEXT) for each in ("name", which) if each]
        of_model = {**({} if which == "label" else _v2(path)), **_v1(path)}
        for route, methods in of_model.items():
            for operation in methods.values():
                operation["parameters"] = named + operation.get("parameters", [])
            found[route] = methods
    return found


def _v2(model: str) -> dict[str, Any]:
    path, head = f"/v2{model}", "The length of the JSON in bytes, if binary tensors follow it."
    answer = content("Probabilities, or the best classes; ids; typicality.", JSON, ref("V2Answer"))
    answer["content"][BINARY] = {"schema": BYTES}
    return {
        path: get("Inputs and outputs of a model.", ref("V2Model"), *UNKNOWN),
        f"{path}/ready": get("A model is ready.", ref("V2ModelReady"), *UNKNOWN, *UNREADY),
        f"{path}/infer": post(
            "Open Inference Protocol 2: predict a batch.",
            "The input `image` is UINT8 (N, H, W, C), or BYTES (N) or (N, 1) of image"
            " files, which are base64 in JSON. The outputs are `probabilities` FP32 (N, K), `id`"
            " BYTES (N), for sending labels to `/feedback`, and, where the model has it and the"
            " request names it, `typicality` FP32 (N). One unreadable image fails the request.",
            {JSON: ref("V2Request"), BINARY: BYTES},
            answer,
            *PREDICTION,
            parameters=[parameter(HEAD, "header", POSITIVE, head), TIMEOUT],
        ),
    }


def _v1(model: str) -> dict[str, Any]:
    path = f"/v1{model}"
    return {
        path: get("State of the versions of a model.", ref("V1Status"), *UNKNOWN),
        f"{path}/metadata": get("Signature of a model.", ref("V1Model"), *UNKNOWN),
        f"{path}:predict": post(
            "TensorFlow Serving: predict a batch.",
            'Each image is `{"b64": …}`, `{"image": …}` or nested lists of pixels. One'
            " unreadable image fails the request.",
            {JSON: ref("V1Request")},
            content("Probabilities, a row for each image, and ids.", JSON, ref("V1Answer")),
            *PREDICTION,
            parameters=[TIMEOUT],
        ),
    }


def schemas() -> dict[str, Schema]:
    """Return the schemas."""
    tensor = {"name": TEXT, "datatype": TEXT, "shape": listed({"type": "integer"})}
    tensors = listed(structure(**tensor))
    full = listed(structure({"parameters": OBJECT, "data": {"type": "array"}}, **tensor))
    wanted = {"type": "array", "items": structure({"parameters": OBJECT}, name=TEXT)}
    yes = {"const": True}
    extensions = listed({"enum": SERVER["extensions"]})
    rows, ids = listed(listed(SHARE)), listed(TEXT)
    status = structure(error_code=TEXT, error_message=TEXT)
    state = structure(version=TEXT, state=TEXT, status=status)
    spec = structure(name=TEXT, signature_name=TEXT, version=TEXT)
    return {
        "Sentence": structure(error=TEXT),
        "V2Server": structure(name=TEXT, version=TEXT, extensions=extensions),
        "V2Live": structure({"ready": yes}, live=yes),
        "V2Model": structure(
            name=TEXT, versions=listed(TEXT), platform=TEXT, inputs=tensors, outputs=tensors
        ),
        "V2ModelReady": structure(name=TEXT, ready=yes),
        "V2Request": structure({"id": TEXT, "parameters": OBJECT, "outputs": wanted}, inputs=full),
        "V2Answer": structure({"id": TEXT}, model_name=TEXT, model_version=TEXT, outputs=full),
        "V1Request": {
            **structure({"signature_name": {"const": SIGNATURE}}),
            "oneOf": [
                structure(instances={"type": "array", "minItems": 1}),
                structure(inputs={"type": ["array", "object"]}),
            ],
        },
        "V1Answer": {
            "oneOf": [structure(**{name: rows, "ids": ids}) for name in ("predictions", "outputs")]
        },
        "V1Status": structure(model_version_status=listed(state)),
        "V1Model": structure(model_spec=spec, metadata=OBJECT),
    }
