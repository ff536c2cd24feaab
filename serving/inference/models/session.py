"""How onnxruntime runs a file: threads, memory, optimisation and device.

The one module that imports onnxruntime; knows nothing of the contract.
"""

import os
from dataclasses import dataclass
from pathlib import Path

# onnxruntime's Linux build reports usage over the network; it reads this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from serving.errors import ModelError
from serving.settings import Settings

LEVELS = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
}
OFFLINE = "offline"  # a graph that was rewritten before
_NONE = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
CUDA = "CUDAExecutionProvider"
# The arena would else double itself, and each new shape be searched exhaustively for its algorithm.
CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}


@dataclass(frozen=True)
class Options:
    """How sessions run; the words are those of the settings."""

    intra_threads: int = 1
    device: str = "cpu"
    precision: str = "auto"
    arena: str = "on"
    optimisation: str = "all"

    @classmethod
    def of(cls, settings: Settings) -> "Options":
        """Those that an operator chose."""
        return cls(
            settings.intra_threads,
            device=settings.device,
            precision=settings.precision,
            arena=settings.arena,
            optimisation=settings.optimisation,
        )


def session(
    path: Path, chosen: Options, *, written: Path | None = None
) -> onnxruntime.InferenceSession:
    """Open an ONNX file; ``written`` gets the graph as it is rewritten for this processor, to be
    opened as ``OFFLINE``.

    Raises:
        ModelError: onnxruntime cannot load it.
    """
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = chosen.intra_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = chosen.arena == "on"
    options.graph_optimization_level = LEVELS.get(chosen.optimisation, _NONE)
    if written is not None:
        options.optimized_model_filepath = str(written)
    options.log_severity_level = 3
    # Spinning threads burned 69 % of a core at thirty requests a second, against 3 % without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    providers = [*_cuda(chosen.device), "CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(path, sess_options=options, providers=providers)
    except Exception as exc:
        # onnxruntime has a class of its own for each cause, with no common root.
        raise ModelError(f"{path} cannot be loaded by onnxruntime: {exc}") from exc


def _cuda(device: str) -> list[tuple[str, dict[str, str]]]:
    """CUDA, where it is wanted and onnxruntime was built with it.

    That it is built in says nothing: without its libraries or a GPU a session falls back to the
    processor, silently. Only the session's own provider tells.
    """
    if device == "cpu" or CUDA not in onnxruntime.get_available_providers():
        return []
    onnxruntime.preload_dlls()  # those of the nvidia packages, which no linker finds
    return [(CUDA, CUDA_OPTIONS)]
