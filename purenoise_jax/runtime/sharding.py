"""Places arrays on the devices of all processes: one mesh axis, over which batches are split."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from purenoise_jax.runtime.errors import ConfigError, DataError


class Placement:
    """The mesh of all devices of all processes, with one axis, and the shardings of arrays on it.

    Args:
        batch_size: B; must be divisible by the number of devices.
        num_devices: number of devices to use; 0 = all.
        devices: of which these are the first; None = those of all processes.

    Raises:
        ConfigError: there are fewer devices, or B is not divisible by their number.
    """

    def __init__(
        self, batch_size: int, num_devices: int = 0, devices: Sequence[Any] | None = None
    ) -> None:
        devices = jax.devices() if devices is None else devices
        if num_devices > len(devices):
            raise ConfigError(
                f"num_devices={num_devices} but this machine has {len(devices)} "
                f"({devices[0].platform}); legal: 0 (all) .. {len(devices)}"
            )
        devices = devices[: num_devices or len(devices)]
        count = len(devices)
        if batch_size % count:
            lower = batch_size // count * count
            near = [size for size in (lower, lower + count) if size]
            raise ConfigError(
                f"batch_size={batch_size} is not divisible by the {count} devices; "
                f"nearest legal: {' or '.join(map(str, near))}"
            )
        self.mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.rows = NamedSharding(self.mesh, PartitionSpec(None, "data"))
        self.batch = NamedSharding(self.mesh, PartitionSpec("data"))

    @property
    def memory(self) -> int | None:
        """Bytes of memory of each device; None if JAX does not report them, as on a CPU."""
        return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")

    def check_fits(self, arrays: Iterable[np.ndarray | None]) -> None:
        """Refuses arrays that would not fit on each device, before they are sent there.

        Raises:
            DataError: they are larger than the device's memory.
        """
        needed = sum(array.nbytes for array in arrays if array is not None)
        if self.memory is not None and needed > self.memory:
            raise DataError(
                f"all images together take {needed / 2**30:,.1f} GiB, but a device, which must "
                f"hold them all, has {self.memory / 2**30:,.1f} GiB; use data.feed=mapped, a "
                "smaller data.image_size or fewer images"
            )

    def replicate(self, array: ArrayLike) -> jax.Array:
        """Copies an array to every device."""
        return self._place(array, self.replicated)

    def split_rows(self, array: ArrayLike) -> jax.Array:
        """Splits the batch axis of an array [steps, B] over the devices."""
        return self._place(array, self.rows)

    def local_rows(self, batch_size: int) -> np.ndarray:
        """The rows of a batch that lie on devices of this process, sorted int[b]."""
        parts = self.batch.addressable_devices_indices_map((batch_size,)).values()
        rows = [np.arange(batch_size)[part] for part in parts if part is not None]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *rows]))

    def split_batch(self, local: np.ndarray, batch_size: int) -> jax.Array:
        """Makes an array [B, ...] that is split over the devices of all processes.

        Args:
            local: its rows of this process, in the order of `local_rows`.
            batch_size: B.
        """
        shape = (batch_size, *local.shape[1:])
        return jax.make_array_from_process_local_data(self.batch, local, shape)

    @staticmethod
    def _place(array: ArrayLike, sharding: NamedSharding) -> jax.Array:
        # Every process holds the same host array and sends its own devices their parts.
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])
