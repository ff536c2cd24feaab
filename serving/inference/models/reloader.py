"""Keep the served versions of one worker equal to the published ones.

Polls the folder, loads in a thread and swaps in one assignment. All workers see the same folder, so
each reaches the same versions by itself. A retired version is freed after its last request. Knows
nothing of HTTP or of gunicorn.
"""

import asyncio
import ctypes
import logging
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from serving.inference.models.model import Model
from serving.inference.models.published import Fingerprint, Published, scan
from serving.inference.models.repository import Repository, Snapshot, load_version, update
from serving.inference.models.routing import FILE, parse
from serving.inference.models.worker_state import Workers
from serving.monitoring.metrics import Metrics
from serving.settings import Settings

logger = logging.getLogger(__name__)

_FOLDERS = re.compile(r"""(?<![^\s'"(])/(?:[^\s/'"]+/)+""")  # of an absolute path


class Reloader:
    """The served versions of one worker."""

    def __init__(self, settings: Settings, metrics: Metrics, workers: Workers) -> None:
        """Start with no version; ``refresh`` loads them."""
        self._settings, self._metrics, self.workers = settings, metrics, workers
        self._snapshot = Snapshot(Repository({}, parse(workers.routing)))
        self.repository = self._snapshot.repository  # served now; a request reads it once
        self._seen: Published | None = None
        self._requested = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reloader")
        metrics.refusals = self._refusals

    @property
    def refused(self) -> Mapping[str, str]:
        """What is published and not served as published: the reason, by path, for clients. The log
        has the reasons with the folders of this machine."""
        folder, refused = self._settings.models, self._snapshot.refused
        return {path: _without_folders(reason, folder) for path, reason in refused.items()}

    def request_refresh(self) -> None:
        """Make ``watch`` refresh at once and retry what was refused; call it in the loop."""
        self._requested.set()

    async def watch(self) -> None:
        """Refresh for ever, every ``poll_seconds`` and on request."""
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._requested.wait(), self._settings.poll_seconds or None)
            retry = self._requested.is_set()
            self._requested.clear()
            try:
                await loop.run_in_executor(self._thread, partial(self.refresh, retry=retry))
            except Exception:
                logger.exception("bug")

    def refresh(self, *, retry: bool = False) -> None:
        """Serve what is published now; blocks while versions are loaded. ``retry`` also loads what
        was refused and has not changed."""
        published = scan(self._settings.models)
        if published == self._seen and not retry:
            return
        self._publish("loading")
        before = self._snapshot
        after = update(before, published, self._load, retry=retry)
        self._snapshot, self._seen = after, published
        self.repository = after.repository
        self._report(before, after, retry=retry)
        if FILE not in after.refused:
            self.workers.accept_routing(published.routing)
        self._publish("ready")
        _trim_memory()

    def _load(self, key: str, files: Fingerprint) -> Model:
        agree = partial(self.workers.agree, f"{key} {files}")
        return load_version(self._settings.models / key, self._settings, agree=agree)

    def _report(self, before: Snapshot, after: Snapshot, *, retry: bool) -> None:
        """Log and count what is new, what is retired and what is refused."""
        old, new = set(before.repository), set(after.repository)
        level = logging.INFO if old else logging.DEBUG
        for model in old - new:
            logger.info("retired", extra={"model": model.name, "version": model.version})
            self._metrics.retire_version(model.name, model.version)
        for model in new - old:
            logger.log(level, "loaded", extra={"model": model.name, "version": model.version})
            self._metrics.add_version(
                model.name,
                model.version,
                labels=model.labels,
                typical=model.typical,
                **model.running,
            )
        self._metrics.sweep()
        if before.repository.routing != after.repository.routing:
            logger.log(level, "routed", extra={"changed": FILE})
        for path, reason in after.refused.items():
            if retry or before.refused.get(path) != reason:
                logger.error("refused", extra={"path": path, "reason": reason})

    def _refusals(self) -> list[str]:
        """Return the path of everything that any worker refuses."""
        return [path for state in self.workers.states() for path in state.get("refused", ())]

    def _publish(self, state: str) -> None:
        repository = self.repository
        models = {
            name: {
                "default_version": repository.default(name),
                "versions": repository.versions(name),
                "running": {str(version): model.running for version, model in versions.items()},
            }
            for name, versions in sorted(repository.models.items())
        }
        self.workers.publish({"state": state, "models": models, "refused": self.refused})


def _without_folders(reason: str, models: Path) -> str:
    """Return a reason in which no absolute path is left, but those below ``models`` by its name."""
    if models.is_absolute() and models.name:
        reason = reason.replace(str(models), models.name)
    return _FOLDERS.sub("", reason)


def _trim_memory() -> None:
    """Return free memory to the system: making a session needs some 25 MB beyond what it keeps, and
    glibc holds on to these."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only in glibc
    if trim is not None:
        trim(0)
