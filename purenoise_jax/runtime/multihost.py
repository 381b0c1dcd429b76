"""Consistency checks and collective operations across the processes of a run.

With a single process they do nothing.
"""

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from purenoise_jax.runtime.errors import ConfigError, PureNoiseError, Stopped, StorageError

T = TypeVar("T")
# Longest time in which a file of process 0 becomes visible on other machines.
SHARED_SECONDS = 5.0
# Most differences in a message.
MOST_SHOWN = 6


class PeerError(PureNoiseError):
    """Another process of the run has failed.

    Args:
        message: names the process.
        exit_code: of that process.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_on_all(work: Callable[[], T]) -> T:
    """Calls a function on every process, and fails on all of them if one fails.

    Otherwise the others would wait in the next collective operation for the process that failed.

    Args:
        work: may raise a `PureNoiseError`.

    Raises:
        PeerError: it failed on another process; with the exit code of that process.
    """
    if jax.process_count() == 1:
        return work()
    error: PureNoiseError | Stopped | None = None
    try:
        result = work()
    except (PureNoiseError, Stopped) as own:
        error = own
    codes = _gather(np.int32(0 if error is None else error.exit_code))
    if error is not None:
        raise error
    failed = np.flatnonzero(codes)
    if failed.size:
        code = int(codes[failed[0]])
        raise PeerError(f"process {failed[0]} could not go on (exit code {code}, see there)", code)
    return result


def assert_equal(values: Mapping[str, Any]) -> None:
    """Refuses processes that would not compute the same run.

    Args:
        values: name -> JSON value, which must be the same on every process.

    Raises:
        ConfigError: naming the processes that differ from process 0, and both values.
    """
    if jax.process_count() == 1:
        return
    # Flattened, so that a message names the single field that differs.
    mine = json.dumps(_flatten(values), sort_keys=True).encode()
    digests = _gather(np.frombuffer(hashlib.sha256(mine).digest(), np.uint8))
    if (digests == digests[0]).all():
        return
    # All processes get here, because all have the same digests. They gather texts of one length.
    length = int(_gather(np.int32(len(mine))).max())
    texts = _gather(np.frombuffer(mine.ljust(length), np.uint8))
    first, *others = (json.loads(text.tobytes()) for text in texts)
    differing = [
        f"process {process} has {name}={_short(other.get(name))}, "
        f"process 0 has {_short(first.get(name))}"
        for process, other in enumerate(others, 1)
        for name in sorted({*first, *other})
        if first.get(name) != other.get(name)
    ]
    more = f"; {len(differing) - MOST_SHOWN} more" if len(differing) > MOST_SHOWN else ""
    raise ConfigError(
        f"{'; '.join(differing[:MOST_SHOWN])}{more}; all processes need the same code, config, "
        "data and workdir"
    )


def assert_same_folder(folder: Path) -> None:
    """Refuses processes whose paths do not lead to one shared folder.

    Args:
        folder: exists on process 0, which may write to it.

    Raises:
        ConfigError: naming a process that sees another folder, or none.
    """
    if jax.process_count() == 1:
        return
    number = int(_gather(np.int32(secrets.randbits(31)))[0])
    mark = folder / f".seen.{number}"

    def make() -> None:
        if jax.process_index() == 0:
            try:
                mark.touch()
            except OSError as error:
                raise StorageError(f"{mark}: cannot be created: {error.strerror}") from error

    run_on_all(make)
    try:
        patience = time.monotonic() + SHARED_SECONDS
        while not mark.exists() and time.monotonic() < patience:
            time.sleep(0.1)
            # A network file system may cache that the folder does not exist until its parent is
            # listed.
            with contextlib.suppress(OSError):
                os.listdir(folder.parent)
        seen = _gather(np.bool_(mark.exists()))
    finally:
        if jax.process_index() == 0:
            mark.unlink(missing_ok=True)
    if not seen.all():
        raise ConfigError(
            f"workdir={folder}: process {np.flatnonzero(~seen)[0]} does not see what process 0 "
            "writes there; all processes need one folder that they share"
        )


class AnyProcess:
    """A flag that any process can set; all processes get the same answer at the same call.

    An answer is about the flags of the previous call. It is computed after the steps that were
    dispatched by then, so that no process waits for those. Only the first call waits.
    """

    def __init__(self) -> None:
        self._answer: jax.Array | None = None
        if jax.process_count() > 1:
            # On the devices of the training step, so that it uses the same connections.
            mesh = Mesh(np.array(jax.devices()), ("all",))
            self._split = NamedSharding(mesh, PartitionSpec("all"))
            self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, flag: bool) -> bool:
        """True if any process has set its flag; all processes must call this equally often.

        Args:
            flag: of this process.
        """
        if jax.process_count() == 1:
            return flag
        before = self._answer
        mine = np.full(jax.local_device_count(), flag)
        self._answer = self._any(jax.make_array_from_process_local_data(self._split, mine))
        return bool(self._answer if before is None else before)


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Maps paths such as "config.seed" to values."""
    if not isinstance(value, Mapping):
        return {path: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found.update(_flatten(inner, f"{path}.{name}" if path else str(name)))
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _gather(value: Any) -> np.ndarray:
    """Gathers the value of each process, [processes, ...]."""
    return np.asarray(multihost_utils.process_allgather(value)).reshape(
        jax.process_count(), *np.shape(value)
    )
