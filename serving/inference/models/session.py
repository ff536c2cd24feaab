"""Open ONNX files with onnxruntime: threads, memory, optimisation and device.

The only module that imports onnxruntime; knows nothing of the contract.
"""

import os
from pathlib import Path

# onnxruntime's Linux build reports usage over the network; it reads this on import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

from serving.errors import ModelError
from serving.settings import Settings

LEVELS = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
}
_NONE = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
CUDA = "CUDAExecutionProvider"
# By default the arena doubles itself, and cuDNN searches exhaustively for each new shape.
CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}


def session(
    path: Path, settings: Settings, *, optimised: bool = False, written: Path | None = None
) -> onnxruntime.InferenceSession:
    """Open an ONNX file; raise ModelError if onnxruntime cannot load it. ``written`` is where to
    write the graph optimised for this processor, to be opened as ``optimised``."""
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.intra_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = settings.arena == "on"
    options.graph_optimization_level = _NONE if optimised else LEVELS[settings.optimisation]
    if written is not None:
        options.optimized_model_filepath = str(written)
    options.log_severity_level = 3
    # Spinning threads burned 69 % of a core at thirty requests a second, against 3 % without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    providers = [*_cuda(settings.device), "CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(path, sess_options=options, providers=providers)
    except Exception as exc:
        # onnxruntime has an exception class for each cause, with no common base class.
        raise ModelError(f"{path} cannot be loaded by onnxruntime: {exc}") from exc


def _cuda(device: str) -> list[tuple[str, dict[str, str]]]:
    """Return the CUDA provider, if it is wanted and onnxruntime was built with it. Without CUDA's
    libraries or a GPU a session still falls back to the processor; only its own provider shows it.
    """
    if device == "cpu" or CUDA not in onnxruntime.get_available_providers():
        return []
    onnxruntime.preload_dlls()  # of the nvidia packages, which no linker finds
    return [(CUDA, CUDA_OPTIONS)]
