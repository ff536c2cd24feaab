"""Train on several hosts at once: each feeds its part of every global batch to Keras on JAX.

The only module that knows JAX. Knows nothing of recipes, of the content of run folders or of how a
host was started.

Loss, gradient, batch normalisation, dropout and augmentation are those of the global batch: there
is one program, and its arrays are sharded over the hosts.
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

HEARTBEAT = 30  # seconds without a heartbeat after which a host counts as lost


@contextmanager
def joined(hosts: Hosts, *, patience: int) -> Iterator[None]:
    """Join the other hosts, which may take ``patience`` seconds to start, for the duration of the
    block, which ends on all of them together. Raise ``HostLost`` if another host is lost; JAX may
    abort this process first."""
    import jax
    from jax.experimental import multihost_utils

    # JAX would catch the SIGTERM that must end this process.
    jax.config.update("jax_enable_preemption_service", False)
    log.info("host %d of %d, host 0 is %s", hosts.index, hosts.count, hosts.coordinator)
    local = hosts.coordinator.startswith(("127.", "localhost:", "[::1]:"))
    try:
        # keras.distribution.initialize does the same, but has none of the three timeouts
        jax.distributed.initialize(
            hosts.coordinator,
            hosts.count,
            hosts.index,
            coordinator_bind_address=hosts.coordinator if local else None,  # None: all interfaces
            initialization_timeout=patience,
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


def agree(facts: Mapping[str, Any]) -> None:
    """Compare facts with those of host 0; raise ``UsageError`` if one differs."""
    theirs = json.loads(_from_first(json.dumps(facts).encode()))
    for key in dict.fromkeys([*facts, *theirs]):
        mine, its = facts.get(key), theirs.get(key)
        if mine != its:
            raise UsageError(
                f"This host has {key} {mine!r}, host 0 has {its!r}. Expected the same command, "
                "code, libraries and data on every host."
            )


def follow_first(run: Path) -> None:
    """Copy host 0's run folder to every host."""
    first = _is_first()
    held = _from_first(_packed(run) if first else b"")
    if not first:
        run.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(held)) as archive:
            archive.extractall(run, filter="data")


def _packed(run: Path) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for path in sorted(set(run.glob("*.*")) - {best(run)}):  # only host 0 needs it
            archive.add(path, path.name)
    return target.getvalue()


def _is_first() -> bool:
    import jax

    return bool(jax.process_index() == 0)


def _from_first(data: bytes) -> bytes:
    """Broadcast host 0's bytes to every host."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    length = int(broadcast_one_to_all(np.int32(len(data))))
    mine = np.zeros(length, np.uint8)
    if _is_first():
        mine[:] = np.frombuffer(data, np.uint8)
    return bytes(broadcast_one_to_all(mine))


def shared(batches: Batches) -> keras.utils.PyDataset:
    """Return the batches that this host feeds: all, or its share of each among several hosts."""
    distribution = keras.distribution.distribution()
    return batches if distribution is None else Share(batches, distribution)


class Share(keras.utils.PyDataset):  # type: ignore[misc]
    """One host's share of every batch.

    All devices need equal shares: a batch that cannot be divided is padded with images of weight 0,
    and the others weigh a little more, so that means over all batches stay the same. ``UsageError``
    is raised if training batches cannot be divided: padding would change the training.
    """

    def __init__(self, batches: Batches, distribution: keras.distribution.DataParallel) -> None:
        super().__init__()
        self._batches = batches
        self._devices: int = distribution.num_model_replicas
        self._hosts, self._index = distribution.num_processes, distribution.data_shard_id
        sizes = batches.sizes()
        padded = sum(size + self._missing(size) for size in sizes)
        self._weight = padded / sum(sizes)
        if self._weight != 1 and batches.shuffled:
            raise UsageError(
                f"{self._devices} devices on {self._hosts} hosts cannot divide batches of "
                f"{sizes[0]} images equally."
            )

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        images, labels = self._batches[index]
        padding = 0, self._missing(len(labels))
        chosen = np.pad(np.arange(len(labels)), padding)  # with copies of the first image
        weights = np.pad(np.full(len(labels), self._weight, np.float32), padding)
        part = len(chosen) // self._hosts
        mine = slice(self._index * part, (self._index + 1) * part)
        return images[chosen[mine]], labels[chosen[mine]], weights[mine]

    def _missing(self, size: int) -> int:
        return -size % self._devices
