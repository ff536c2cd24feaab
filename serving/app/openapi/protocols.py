"""The routes of the other protocols in the OpenAPI document.

Knows the JSON of their handlers; knows nothing of Flask.
"""

from typing import Any

from serving import errors
from serving.api.openinference import SERVER
from serving.api.tfserving import SIGNATURE
from serving.app.openapi.schemas import (
    JSON,
    Schema,
    content,
    failures,
    listed,
    ref,
    structure,
    text,
)

BINARY = "application/octet-stream"
UNKNOWN = (errors.UnknownModel, errors.UnknownVersion)
UNREADY = (errors.DeviceMissing, errors.Draining)
FAILURES = (
    *(errors.BadRequest, errors.InvalidImage, *UNKNOWN, errors.RequestTooLarge),
    *(errors.ImageTooLarge, errors.TargetTooLong, errors.UnsupportedMedia),
    *(
        errors.HeaderTooLarge,
        errors.InternalError,
        errors.Overloaded,
        errors.BodyTooSlow,
        errors.DeadlineExceeded,
    ),
)
HEAD = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "schema": {"type": "integer", "minimum": 1},
    "description": "The length of the JSON in bytes, if binary tensors follow it.",
}
TIMEOUT = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "schema": {"type": "integer", "minimum": 1},
    "description": "Shortens the deadline.",
}


def paths() -> dict[str, Any]:
    """Return the description of every route."""
    server = {"get": _get("The server and its extensions.", ref("V2Server"))}
    found: dict[str, Any] = {
        "/v2": server,
        "/v2/": server,
        "/v2/health/live": {"get": _get("The process is alive.", ref("V2Live"))},
        "/v2/health/ready": {"get": _get("All models are ready.", ref("V2Live"), *UNREADY)},
    }
    for which in ("", "version", "label"):
        path = "/models/{name}" + (f"/{which}s/{{{which}}}" if which else "")
        of_model = {**({} if which == "label" else _v2_paths(path)), **_v1_paths(path)}
        named = [_in_path("name"), *([_in_path(which)] if which else [])]
        for (route, method), operation in of_model.items():
            operation["parameters"] = named + operation.get("parameters", [])
            found[route] = {method: operation}
    return found


Operations = dict[tuple[str, str], dict[str, Any]]


def _v2_paths(model: str) -> Operations:
    path = f"/v2{model}"
    return {
        (path, "get"): _get("Inputs and outputs of a model.", ref("V2Model"), *UNKNOWN),
        (f"{path}/ready", "get"): _get(
            "A model is ready.", ref("V2ModelReady"), *UNKNOWN, *UNREADY
        ),
        (f"{path}/infer", "post"): _infer(),
    }


def _v1_paths(model: str) -> Operations:
    path = f"/v1{model}"
    return {
        (path, "get"): _get("State of the versions of a model.", ref("V1Status"), *UNKNOWN),
        (f"{path}/metadata", "get"): _get("Signature of a model.", ref("V1Model"), *UNKNOWN),
        (f"{path}:predict", "post"): _predict(),
    }


def schemas() -> dict[str, Any]:
    """Return the schemas."""
    return {**_shared(), **_v2(), **_v1()}


def _shared() -> dict[str, Schema]:
    return {"Sentence": structure({"error": text()})}


def _v2() -> dict[str, Schema]:
    whole = {"type": "integer"}
    tensor = {"name": text(), "datatype": text(), "shape": listed(whole)}
    more = {"parameters": {"type": "object"}, "data": {"type": "array"}}
    extension = {"enum": SERVER["extensions"]}
    tensors = listed(structure(tensor))
    model = {"name": text(), "versions": listed(text()), "platform": text()}
    yes = {"const": True}
    outputs = {
        "type": "array",
        "items": structure({"name": text()}, optional={"parameters": {"type": "object"}}),
    }
    full = listed(structure(tensor, optional=more))
    return {
        "V2Server": structure({"name": text(), "version": text(), "extensions": listed(extension)}),
        "V2Live": structure({"live": yes}, optional={"ready": yes}),
        "V2Model": structure({**model, "inputs": tensors, "outputs": tensors}),
        "V2ModelReady": structure({"name": text(), "ready": yes}),
        "V2Request": structure(
            {"inputs": full},
            optional={"id": text(), "parameters": {"type": "object"}, "outputs": outputs},
        ),
        "V2Answer": structure(
            {"model_name": text(), "model_version": text(), "outputs": full},
            optional={"id": text()},
        ),
    }


def _v1() -> dict[str, Schema]:
    rows = listed(listed({"type": "number", "minimum": 0, "maximum": 1}))
    ids = listed(text())
    status = structure({"error_code": text(), "error_message": text()})
    state = structure({"version": text(), "state": text(), "status": status})
    spec = structure({"name": text(), "signature_name": text(), "version": text()})
    instances = {"type": "array", "minItems": 1}
    return {
        "V1Request": {
            **structure({}, optional={"signature_name": {"const": SIGNATURE}}),
            "oneOf": [
                structure({"instances": instances}),
                structure({"inputs": {"type": ["array", "object"]}}),
            ],
        },
        "V1Answer": {
            "oneOf": [structure({name: rows, "ids": ids}) for name in ("predictions", "outputs")]
        },
        "V1Status": structure({"model_version_status": listed(state)}),
        "V1Model": structure({"model_spec": spec, "metadata": {"type": "object"}}),
    }


def _infer() -> dict[str, Any]:
    bodies = {JSON: ref("V2Request"), BINARY: {"type": "string", "format": "binary"}}
    answer = content("Probabilities, or the best classes, and ids.", JSON, ref("V2Answer"))
    answer["content"][BINARY] = {"schema": bodies[BINARY]}
    return {
        "summary": "Open Inference Protocol 2: predict a batch.",
        "description": "The input `image` is UINT8 (N, H, W, C), or BYTES (N) or (N, 1) of image"
        " files, which are base64 in JSON. The outputs are `probabilities` FP32 (N, K) and `id`"
        " BYTES (N), for sending labels to `/feedback`. One unreadable image fails the"
        " request.",
        "parameters": [HEAD, TIMEOUT],
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": schema} for kind, schema in bodies.items()},
        },
        "responses": {"200": answer, **failures(*FAILURES, shape="Sentence")},
    }


def _predict() -> dict[str, Any]:
    return {
        "summary": "TensorFlow Serving: predict a batch.",
        "description": 'Each image is `{"b64": …}`, `{"image": …}` or nested lists of pixels. One'
        " unreadable image fails the request.",
        "parameters": [TIMEOUT],
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("V1Request")}}},
        "responses": {
            "200": content("Probabilities, a row for each image, and ids.", JSON, ref("V1Answer")),
            **failures(*FAILURES, shape="Sentence"),
        },
    }


def _get(summary: str, schema: Schema, *wrong: type[errors.ServingError]) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": content(summary, JSON, schema), **failures(*wrong, shape="Sentence")},
    }


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": text()}
