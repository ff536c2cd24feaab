"""TensorFlow Serving's REST API for predictions: its requests and answers.

From https://www.tensorflow.org/tfx/serving/api_rest. Knows no server and no framework.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from serving.api.body import Limits, check_count, from_base64
from serving.api.pipeline import Prediction
from serving.api.tensors import Wanted, loaded, pixels, shape
from serving.errors import BadRequest
from serving.inference.images.decoder import Image
from serving.inference.images.pixels import PixelSpec
from serving.inference.models.model import Model

SIGNATURE = "serving_default"
# Signatures that accept files often use the second name.
INPUTS = ("image", "image_bytes")
EXPECTED = 'Expected {"b64": "<base64>"}, {"image": …} or nested lists of pixels.'


@dataclass(frozen=True)
class Predict(Wanted):
    """A request: its images, and True if they were a column of ``inputs``."""

    columnar: bool = False


def status(models: Iterable[Model]) -> dict[str, Any]:
    """Return the state of versions."""
    return {
        "model_version_status": [
            {
                "version": str(model.version),
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
            for model in models
        ]
    }


def metadata(model: Model) -> dict[str, Any]:
    """Return the inputs and outputs of a model as the signature of a saved model."""
    signature = {
        "inputs": {"image": _tensor("image", "DT_UINT8", [-1, *shape(model.spec)])},
        "outputs": {"probabilities": _tensor("probabilities", "DT_FLOAT", [-1, len(model.labels)])},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }


def _tensor(name: str, dtype: str, sizes: Sequence[int]) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in sizes]
    tensor_shape = {"dim": dimensions, "unknown_rank": False}
    return {"dtype": dtype, "tensor_shape": tensor_shape, "name": f"{name}:0"}


def parse(data: bytes, spec: PixelSpec, limits: Limits) -> Predict:
    """Parse a body.

    Raises:
        BadRequest: the body is malformed, or is not an input of the model.
        RequestTooLarge: the body has more images, or more numbers, than the limits.
    """
    body = loaded(data, spec, limits)
    signature = body.get("signature_name") or SIGNATURE
    if signature != SIGNATURE:
        raise BadRequest(f"No signature named {str(signature)[:40]!r}. Known: {SIGNATURE!r}.")
    if ("instances" in body) is ("inputs" in body):
        raise BadRequest("The JSON needs either 'instances' or 'inputs'.")
    columnar = "inputs" in body
    rows = _named(body["inputs"]) if columnar else body["instances"]
    if not isinstance(rows, list):
        raise BadRequest(f"The images are not a list. {EXPECTED}")
    check_count(len(rows), limits)
    return Predict([_image(_named(row), spec) for row in rows], columnar=columnar)


def answer(request: Predict, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the one output, without its name, and the ids, in a member that clients ignore."""
    rows, ids = [each.row for each in predictions], [each.id for each in predictions]
    return {"outputs" if request.columnar else "predictions": rows, "ids": ids}


def _named(value: Any) -> Any:
    """Return the value of the one input, which may be named."""
    if isinstance(value, dict) and "b64" not in value:
        if len(value) != 1 or next(iter(value)) not in INPUTS:
            raise BadRequest(f"The inputs are not those of the model, 'image' alone. {EXPECTED}")
        return next(iter(value.values()))
    return value


def _image(value: Any, spec: PixelSpec) -> Image:
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return from_base64(value["b64"])
    if isinstance(value, list):
        return pixels(value, shape(spec))
    raise BadRequest(f"An instance is not an image. {EXPECTED}")
