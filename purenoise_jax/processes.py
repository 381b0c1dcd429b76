"""What the processes of a run have to be at one about, and how they find out.

With a single process all of this costs nothing.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from purenoise_jax.errors import ConfigError, PureNoiseError, Stopped

T = TypeVar("T")


class PeerError(PureNoiseError):
    """Another process of the run could not go on.

    Args:
      message: which.
      exit_code: of that process.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def together(work: Callable[[], T]) -> T:
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


def agree(values: Mapping[str, Any]) -> None:
    """Refuses processes that would not make the same run.

    Args:
      values: name -> JSON value, which should be the same on every process.

    Raises:
      ConfigError: one differs from that of process 0, naming both and the process.
    """
    if jax.process_count() == 1:
        return
    texts = {name: json.dumps(value, sort_keys=True) for name, value in values.items()}
    digests = [hashlib.sha256(text.encode()).digest() for text in texts.values()]
    gathered = _gather(np.frombuffer(b"".join(digests), np.uint8).reshape(len(texts), -1))
    differing = [
        f"process {process} has another {name} than process 0"
        for process in range(1, len(gathered))
        for i, name in enumerate(texts)
        if (gathered[process, i] != gathered[0, i]).any()
    ]
    if differing:
        mine = ", ".join(f"{name} {text[:60]}" for name, text in texts.items())
        raise ConfigError(
            f"{'; '.join(differing[:4])}; all processes need the same code, config, data and "
            f"workdir (process {jax.process_index()} has {mine})"
        )


class Vote:
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


def _gather(value: Any) -> np.ndarray:
    """[processes, ...], the value that each process has."""
    return np.asarray(multihost_utils.process_allgather(value)).reshape(
        jax.process_count(), *np.shape(value)
    )
