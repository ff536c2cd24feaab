"""Keep what one worker serves like what is published: look now and then, load in a thread, swap in
one assignment.

Knows repositories, metrics and the state that is told to the other workers; knows nothing of HTTP
or of gunicorn. Each worker has its own, and all come to the same, as all see the same folder. A
version that is retired is freed with the last request that holds it.
"""

import asyncio
import ctypes
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from serving.monitoring.metrics import Metrics
from serving.inference.models.model import Model
from serving.inference.models.worker_state import Peers
from serving.inference.models.repository import Repository, State, load_version, renewed
from serving.inference.models.routing import FILE, parse
from serving.inference.models.session import Options
from serving.settings import Settings
from serving.inference.models.published import Published, scan

logger = logging.getLogger(__name__)


class Reloader:
    """What one worker serves."""

    def __init__(self, settings: Settings, metrics: Metrics, peers: Peers) -> None:
        """Nothing is loaded before the first look."""
        self._settings, self._metrics, self.peers = settings, metrics, peers
        # Tested when it was taken.
        self._state = State(Repository({}, parse(peers.routing)))
        self._seen: Published | None = None
        self._published = Published()  # what is looked at
        self._told = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reloader")
        metrics.refusals = self._refusals

    @property
    def repository(self) -> Repository:
        """What is served now; a request takes it once."""
        return self._state.repository

    @property
    def refused(self) -> Mapping[str, str]:
        """What is published and not served as it is published: the reason, by path."""
        return self._state.refused

    def look_now(self) -> None:
        """Have the watch look at once, also at what was refused before; called in its loop."""
        self._told.set()

    async def watch(self) -> None:
        """Look now and then, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), self._settings.poll_seconds or None)
            again = self._told.is_set()
            self._told.clear()
            try:
                await loop.run_in_executor(self._thread, partial(self.look, again=again))
            except Exception:
                logger.exception("bug")

    def look(self, *, again: bool = False) -> None:
        """Serve what is published now; takes as long as loading takes. ``again`` tries also what
        was refused and has not changed.

        The loop goes on meanwhile: onnxruntime and Pillow work without Python's lock.
        """
        published = scan(self._settings.models)
        if published == self._seen and not again:
            return
        self._tell("loading")
        before = self._state
        self._published = published
        after = renewed(before.forgetting() if again else before, published, self._load)
        self._state, self._seen = after, published
        self._count(before, after, again=again)
        if FILE not in after.refused:
            self.peers.took(published.routing)
        self._tell("ready")
        _give_back()

    def _load(self, key: str) -> Model:
        settings = self._settings
        return load_version(
            settings.models / key,
            options=Options.of(settings),
            max_pixels=settings.max_pixels,
            agreed=partial(self.peers.agreed, key, str(self._published.versions[key])),
        )

    def _count(self, before: State, after: State, *, again: bool) -> None:
        """Log and count what is new, what is gone and what is refused."""
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
                provider=model.provider,
                precision=model.precision,
                labels=model.labels,
            )
        self._metrics.sweep()
        if before.repository.routing != after.repository.routing:
            logger.log(level, "routed", extra={"changed": FILE})
        for path, reason in after.refused.items():
            if again or before.refused.get(path) != reason:
                logger.error("refused", extra={"path": path, "reason": reason})

    def _refusals(self) -> list[str]:
        """What any worker refuses."""
        return [path for state in self.peers.states() for path in state.get("refused", ())]

    def _tell(self, state: str) -> None:
        repository = self.repository
        self.peers.tell(
            {
                "state": state,
                "models": {
                    name: {
                        "default_version": repository.default(name),
                        "versions": repository.versions(name),
                        "running": {
                            str(version): model.running
                            for version, model in repository.models[name].items()
                        },
                    }
                    for name in repository.names
                },
                "refused": dict(self.refused),
            }
        )


def _give_back() -> None:
    """Return to the system what is free: to make a session takes some 25 MB beside what it keeps,
    and glibc holds on to them."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)
