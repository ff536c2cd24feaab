"""From a command to the service: a child loads and tests every published model while this process
imports what its workers need, and then becomes gunicorn's master.

Knows processes; knows nothing of HTTP. No session of onnxruntime is ever made here: its threads do
not survive a fork. What is imported before the fork is there once for all workers.
"""

import gc
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from serving.monitoring import run_dir
from serving.monitoring.run_dir import DIRECTORY

ON_GPU = 3  # exit code of a check that is passed on a GPU


def serve(check: Callable[[], int], *, workers: int) -> int:
    """Serve until stopped; the exit code, at once where ``check`` has another than 0 or ``ON_GPU``.

    ``workers`` is 0 where one is enough for a GPU.
    """
    child = os.fork()
    if not child:
        os._exit(_ended(check))
    os.environ[DIRECTORY] = str(run_dir.create())
    importlib.import_module("serving.app")
    gc.freeze()  # or a collection in a worker would copy what all share
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, ON_GPU):
        Path(os.environ[DIRECTORY]).rmdir()
        return _told(code)
    if code == ON_GPU and not workers:
        os.environ["CONVSERVE_WORKERS"] = "1"  # several would only share the GPU's memory
    sys.argv = ["gunicorn", "--config", str(Path(__file__).with_name("gunicorn.conf.py"))]
    gunicorn = importlib.import_module("gunicorn.app.wsgiapp")
    gunicorn.run()
    return 0


def _ended(check: Callable[[], int]) -> int:
    try:
        return check()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _told(code: int) -> int:
    if code < 0:
        print(f"serving: The check of the models was ended by signal {-code}.", file=sys.stderr)  # noqa: T201
        return 1
    return code
