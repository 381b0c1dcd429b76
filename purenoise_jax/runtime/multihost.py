"""What the processes of a run have to be at one about, and how they find out.

With a single process all of this costs nothing.
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
# How long what process 0 writes may take to be seen from other machines.
SHARED_SECONDS = 5.0
# Of differences that are told.
MOST = 6


class PeerError(PureNoiseError):
    """Another process of the run could not go on.

    Args:
        message: which.
        exit_code: of that process.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_on_all(work: Callable[[], T]) -> T:
    """Does something on every process, and fails on all of them if one fails.

    Else those that are well would wait in the next collective operation for one that has left.

    Args:
        work: may raise a `PureNoiseError`.

    Raises:
        PeerError: it failed on another process, with that one's exit code.
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
    """Refuses processes that would not make the same run.

    Args:
        values: name -> JSON value, which should be the same on every process.

    Raises:
        ConfigError: one differs from that of process 0, naming the process and what differs.
    """
    if jax.process_count() == 1:
        return
    # By path, so that what is told is the field that differs.
    mine = json.dumps(_flatten(values), sort_keys=True).encode()
    digests = _gather(np.frombuffer(hashlib.sha256(mine).digest(), np.uint8))
    if (digests == digests[0]).all():
        return
    # All are here, as all have the same digests; texts have one length to travel.
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
    more = f"; {len(differing) - MOST} more" if len(differing) > MOST else ""
    raise ConfigError(
        f"{'; '.join(differing[:MOST])}{more}; all processes need the same code, config, data and "
        "workdir"
    )


def assert_same_folder(folder: Path) -> None:
    """Refuses processes that do not see one folder under their path.

    Args:
        folder: exists for process 0, which may write to it.

    Raises:
        ConfigError: naming the process that sees another, or none.
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
                raise StorageError(f"{mark}: cannot be made: {error.strerror}") from error

    run_on_all(make)
    try:
        patience = time.monotonic() + SHARED_SECONDS
        while not mark.exists() and time.monotonic() < patience:
            time.sleep(0.1)
            # A network file system may remember that there was no such folder, until it is asked
            # for the one above.
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
    """Whether a flag is up on any process; all of them get the same answer at the same call.

    An answer is to the flags of the call before: it is computed behind the steps that were handed
    over to the device by then, so that nobody waits for those. Only the first call waits.
    """

    def __init__(self) -> None:
        self._answer: jax.Array | None = None
        if jax.process_count() > 1:
            # Over the devices of the training step, and so over its connections.
            mesh = Mesh(np.array(jax.devices()), ("all",))
            self._split = NamedSharding(mesh, PartitionSpec("all"))
            self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self, flag: bool) -> bool:
        """Has to be called equally often by all processes.

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
    """Path, such as "config.seed" -> value."""
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
    """[processes, ...], the value that each process has."""
    return np.asarray(multihost_utils.process_allgather(value)).reshape(
        jax.process_count(), *np.shape(value)
    )
