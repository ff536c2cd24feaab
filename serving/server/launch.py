"""Start the service: a child checks every published model while this process imports what its
workers need, and then becomes gunicorn's master.

Knows processes; knows nothing of HTTP. No onnxruntime session is made here, as its threads would
not survive a fork. Modules imported before the fork are shared by all workers.
"""

import gc
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from serving.monitoring import run_dir

ON_GPU = 3  # exit code of a check that passed on a GPU


def serve(check: Callable[[], int], *, workers: int) -> int:
    """Serve until stopped. Return the exit code: that of ``check`` unless it is 0 or ``ON_GPU``.

    ``workers`` is 0 if the number is not set: on a GPU it is 1 then.
    """
    child = os.fork()
    if not child:
        code = check()
        sys.stdout.flush()  # stderr is flushed by each line
        os._exit(code)
    os.environ[run_dir.DIRECTORY] = str(run_dir.create())
    importlib.import_module("serving.app")
    gc.freeze()  # or a collection in a worker would copy the shared pages
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, ON_GPU):
        Path(os.environ[run_dir.DIRECTORY]).rmdir()
        if code < 0:
            print(f"serving: The check of the models was ended by signal {-code}.", file=sys.stderr)  # noqa: T201
        return max(code, 1)
    if code == ON_GPU and not workers:
        os.environ["CONVSERVE_WORKERS"] = "1"  # more would only share the GPU's memory
    sys.argv = ["gunicorn", "--config", str(Path(__file__).with_name("gunicorn.conf.py"))]
    importlib.import_module("gunicorn.app.wsgiapp").run()
    return 0
