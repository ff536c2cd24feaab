"""Tiny real ONNX models with a known answer: mean brightness, "dark" or "light"."""

import json
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from PIL import Image

LABELS = ("dark", "light")


def brightness_graph(
    *,
    height: int = 8,
    width: int = 6,
    channels: int = 1,
    labels: tuple[str, ...] = LABELS,
    output_type: int = TensorProto.FLOAT,
    input_name: str = "image",
    delay: int = 0,
) -> onnx.ModelProto:
    """P(light) = mean of the pixels / 255. ``delay`` adds so many slow matrix products."""
    nodes = [
        helper.make_node("Cast", [input_name], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean4"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean4", "axis"], ["mean"]),
        helper.make_node("Div", ["mean", "white"], ["light"]),
        helper.make_node("Sub", ["one", "light"], ["dark"]),
        helper.make_node("Concat", ["dark", "light"], ["both"], axis=1),
        helper.make_node("Cast", ["both"], ["probabilities"], to=output_type),
    ]
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("white", TensorProto.FLOAT, [1], [255.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [
            helper.make_tensor_value_info(
                input_name, TensorProto.UINT8, ["N", height, width, channels]
            )
        ],
        [helper.make_tensor_value_info("probabilities", output_type, ["N", len(LABELS)])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


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
    full = {
        "schema": "1",
        "name": name,
        "version": str(version),
        "labels": json.dumps(LABELS),
        "fit": "stretch",
        "title": "Dark or light",
        "metrics": json.dumps({"accuracy": 1.0, "images": 2}),
        "baseline": json.dumps({"classes": {"dark": 0.5, "light": 0.5}}),
        **(metadata or {}),
    }
    helper.set_model_props(proto, {key: value for key, value in full.items() if value})
    onnx.save(proto, path / "model.onnx")
    for label, brightness in (golden or {"dark-1": 10, "light-1": 240}).items():
        Image.new("L", (6, 8), brightness).save(path / "golden" / f"{label}.png")
    return path
