"""Tiny real models with a known answer (mean brightness: "dark" or "light"), pictures, checks."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from PIL import Image
from werkzeug.test import TestResponse

LABELS = ("dark", "light")


def brightness_graph(
    *,
    shape: tuple[str | int, ...] = ("N", 8, 6, 1),
    input_name: str = "image",
    output_type: int = TensorProto.FLOAT,
    white: float = 255.0,
    one: float = 1.0,
    products: int = 0,
    typical: float | None = None,
) -> onnx.ModelProto:
    """Return a graph: P(light) = mean of the pixels / white, P(dark) = one - P(light); ``products``
    is the number of slow matrix products. With ``typical`` the graph has typicality, P(light)
    times this."""
    nodes = [
        helper.make_node("Cast", [input_name], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["means", "axis"], ["mean"]),
        helper.make_node("Div", ["mean", "white"], ["fast"]),
        *_slow(products),
        helper.make_node("Sub", ["one", "light"], ["dark"]),
        helper.make_node("Concat", ["dark", "light"], ["both"], axis=1),
        helper.make_node("Cast", ["both"], ["probabilities"], to=output_type),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", output_type, ["N", len(LABELS)])]
    if typical is not None:
        nodes += [
            helper.make_node("Squeeze", ["light", "axis"], ["share"]),
            helper.make_node("Mul", ["share", "typical"], ["typicality"]),
        ]
        outputs.append(helper.make_tensor_value_info("typicality", TensorProto.FLOAT, ["N"]))
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info(input_name, TensorProto.UINT8, shape)],
        outputs,
        [
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("white", TensorProto.FLOAT, [1], [white]),
            helper.make_tensor("one", TensorProto.FLOAT, [1], [one]),
            helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
            helper.make_tensor("typical", TensorProto.FLOAT, [1], [typical or 0.0]),
            helper.make_tensor("square", TensorProto.INT64, [2], [1024, 1024]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _slow(products: int) -> list[onnx.NodeProto]:
    """Return light = fast + 0, where the zero is a matrix product that depends on the image."""
    return [
        helper.make_node("ReduceSum", ["fast"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Expand", ["nothing", "square"], ["product0"]),
        *(
            helper.make_node("MatMul", [f"product{i}", "product0"], [f"product{i + 1}"])
            for i in range(products)
        ),
        helper.make_node("ReduceMean", [f"product{products}"], ["waste"], keepdims=0),
        helper.make_node("Add", ["fast", "waste"], ["light"]),
    ]


def write(
    path: Path,
    proto: onnx.ModelProto,
    *,
    name: str = "shade",
    version: int = 1,
    metadata: dict[str, str] | None = None,
    file: str = "model.onnx",
) -> None:
    """Write a graph with its metadata into the folder of a version."""
    typical = len(proto.graph.output) > 1
    baseline = {"classes": {"dark": 0.5, "light": 0.5}, "confidence": [0.0] * 9 + [1.0]}
    full = {
        "schema": "2" if typical else "1",
        "name": name,
        "version": str(version),
        "labels": json.dumps(LABELS),
        "fit": "stretch",
        "title": "Dark or light",
        "metrics": json.dumps({"accuracy": 1.0, "images": 2}),
        "baseline": json.dumps({**baseline, **({"typicality": [0.1] * 10} if typical else {})}),
        **(metadata or {}),
    }
    helper.set_model_props(proto, {key: value for key, value in full.items() if value})
    onnx.save(proto, path / file)


def add_int8(path: Path, *, precision: str = "int8", products: int = 0) -> None:
    """Write the int8 file beside ``model.onnx``."""
    write(
        path,
        brightness_graph(products=products),
        name=path.parent.name,
        metadata={"precision": precision},
        file="model.int8.onnx",
    )


def publish(
    folder: Path,
    *,
    name: str = "shade",
    version: int = 1,
    metadata: dict[str, str] | None = None,
    graph: onnx.ModelProto | None = None,
    golden: dict[str, int] | None = None,
    **graph_options: Any,
) -> Path:
    """Write ``folder/name/version`` as training would; ``metadata`` overrides or adds keys."""
    path = folder / name / str(version)
    (path / "golden").mkdir(parents=True)
    proto = graph or brightness_graph(**graph_options)
    write(path, proto, name=name, version=version, metadata=metadata)
    for label, brightness in (golden or {"dark-1": 10, "light-1": 240}).items():
        Image.new("L", (6, 8), brightness).save(path / "golden" / f"{label}.png")
    return path


def sum_up(version: Path) -> None:
    """Write ``SHA256SUMS``."""
    files = sorted(path for path in version.rglob("*") if path.is_file())
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(version)}\n"
        for path in files
    ]
    (version / "SHA256SUMS").write_text("".join(sums))


def png(
    brightness: int, *, size: tuple[int, int] = (6, 8), mode: str = "L", level: int = -1
) -> bytes:
    """Return the file of a grey picture of one brightness; ``level`` is zlib's compression."""
    file = io.BytesIO()
    Image.new("L", size, brightness).convert(mode).save(file, "PNG", compress_level=level)
    return file.getvalue()


def multipart(*files: bytes) -> tuple[bytes, str]:
    """Return a form of image parts, and its content type."""
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    parts = [head + file + b"\r\n" for file in files]
    return b"".join(parts) + b"--b--\r\n", "multipart/form-data; boundary=b"


def assert_error(response: TestResponse, status: int, code: str) -> str:
    """Check the one shape of every error; return the message."""
    assert response.status_code == status, response.text
    assert response.mimetype == "application/json"
    assert response.headers["X-Request-ID"]
    assert response.json is not None
    assert response.json.keys() == {"error"}
    assert response.json["error"].keys() == {"code", "message"}
    assert response.json["error"]["code"] == code
    message = response.json["error"]["message"]
    assert isinstance(message, str)
    assert message
    return message
