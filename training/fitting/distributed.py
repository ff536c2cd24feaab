"""Train on several hosts at once: each feeds its part of every global batch, and Keras on JAX makes
of them what one host would have made.

The only module that knows JAX. Knows nothing of recipes, of run folders' content or of how a host
was started.

Loss, gradient, batch normalisation, dropout and augmentation are those of the global batch: the
program is one, and its arrays are spread over the hosts.
"""

import io
import json
import logging
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training.errors import HostLost, UsageError
from training.fitting.batches import Batches
from training.fitting.checkpoints import best
from training.fitting.launcher import LOST, Hosts

log = logging.getLogger(__name__)

HEARTBEAT = 30  # seconds without a sign of life after which a host counts as lost
PATIENCE = 600  # seconds to wait for the others at the start: an image may have to be pulled


@contextmanager
def joined(hosts: Hosts) -> Iterator[None]:
    """Be one of the hosts while the block runs; it ends on all of them together.

    Raises:
        HostLost: another host is gone. (JAX may abort this process first.)
    """
    import jax
    from jax.experimental import multihost_utils

    # JAX would catch the SIGTERM that must end this process.
    jax.config.update("jax_enable_preemption_service", False)
    log.info("host %d of %d, host 0 is %s", hosts.index, hosts.count, hosts.coordinator)
    try:
        # keras.distribution.initialize does the same, but cannot be told any of the three times
        jax.distributed.initialize(
            hosts.coordinator,
            hosts.count,
            hosts.index,
            coordinator_bind_address=_loopback(hosts.coordinator),
            initialization_timeout=PATIENCE,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )
        yield
        multihost_utils.sync_global_devices("done")
        jax.distributed.shutdown()
    except (RuntimeError, ValueError) as exc:  # JAX raises either
        if not any(word in str(exc) for word in LOST):
            raise
        raise HostLost from exc


def _loopback(coordinator: str) -> str | None:
    """Where host 0 listens: on every interface, but for hosts that are all this machine."""
    return coordinator if coordinator.startswith(("127.", "localhost:", "[::1]:")) else None


def follow_first(run: Path, facts: Mapping[str, Any]) -> None:
    """Make sure that every host trains the same, and give each what host 0's run folder holds.

    Raises:
        UsageError: host 0 has other ``facts`` than this one.
    """
    theirs = json.loads(_from_first(json.dumps(facts).encode()))
    for key, mine in facts.items():
        if theirs[key] != mine:
            raise UsageError(
                f"This host has {key} {mine!r}, host 0 has {theirs[key]!r}. Expected the same "
                "command, code and data on every host."
            )
    first = _index() == 0
    held = _from_first(_packed(run) if first else b"")
    if not first:
        run.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(held)) as archive:
            archive.extractall(run, filter="data")


def _packed(run: Path) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for path in sorted(set(run.glob("*.*")) - {best(run)}):  # which the first alone keeps
            archive.add(path, path.name)
    return target.getvalue()


def _from_first(data: bytes) -> bytes:
    """Host 0's bytes, on every host."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    length = int(broadcast_one_to_all(np.int32(len(data))))
    mine = np.zeros(length, np.uint8)
    if _index() == 0:
        mine[:] = np.frombuffer(data, np.uint8)
    return bytes(broadcast_one_to_all(mine))


def _index() -> int:
    import jax

    index: int = jax.process_index()
    return index


def shared(batches: Batches) -> keras.utils.PyDataset:
    """What this host feeds of the batches: all of them, or its part where it is one of several."""
    distribution = keras.distribution.distribution()
    return batches if distribution is None else Share(batches, distribution)


class Share(keras.utils.PyDataset):  # type: ignore[misc]
    """One host's part of every batch.

    Devices must get equally much: a batch that they cannot share is filled up with images of
    weight 0, and the others weigh a little more, so that means over all batches are what they were.

    Raises:
        UsageError: training batches cannot be shared; filling up would change what is learnt.
    """

    def __init__(self, batches: Batches, distribution: keras.distribution.DataParallel) -> None:
        super().__init__()
        self._batches = batches
        self._devices: int = distribution.num_model_replicas
        self._hosts, self._index = distribution.num_processes, distribution.data_shard_id
        sizes = batches.sizes()
        filled = sum(size + self._missing(size) for size in sizes)
        self._weight = filled / sum(sizes)
        if self._weight != 1 and batches.shuffled:
            raise UsageError(
                f"{self._devices} devices on {self._hosts} hosts cannot share batches of "
                f"{sizes[0]} images equally."
            )

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        images, labels = self._batches[index]
        weights = np.full(len(labels), self._weight, np.float32)
        if missing := self._missing(len(labels)):
            copies = [0] * missing
            images = np.concatenate([images, images[copies]])
            labels = np.concatenate([labels, labels[copies]])
            weights = np.concatenate([weights, np.zeros(missing, np.float32)])
        part = len(labels) // self._hosts
        mine = slice(self._index * part, (self._index + 1) * part)
        return images[mine], labels[mine], weights[mine]

    def _missing(self, size: int) -> int:
        return -size % self._devices
