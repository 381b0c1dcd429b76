"""Arrays over the devices of all processes: one mesh axis, over which batches are split."""

from collections.abc import Iterable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from purenoise_jax.runtime.errors import ConfigError, DataError


class Placement:
    """Where arrays live: one mesh axis over all devices of all processes.

    Args:
        batch_size: B; must be divisible by the number of devices.
        num_devices: how many devices to use; 0 = all there are.

    Raises:
        ConfigError: more devices are wanted than there are, or B is not divisible by them.
    """

    def __init__(self, batch_size: int, num_devices: int = 0) -> None:
        devices = jax.devices()
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
        """Bytes of each device's memory; None where JAX does not tell, as on a CPU."""
        return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")

    def check_fits(self, arrays: Iterable[np.ndarray | None]) -> None:
        """Refuses arrays that would not fit on each device, before they are sent there.

        Raises:
            DataError: they are larger than the device's memory.
        """
        needed = sum(array.nbytes for array in arrays if array is not None)
        if self.memory is not None and needed > self.memory:
            raise DataError(
                f"all images together take {needed / 2**30:,.1f} GiB, but a device has "
                f"{self.memory / 2**30:,.1f} GiB, and they lie there as a whole; use a smaller "
                "data.image_size or fewer images"
            )

    def replicate(self, array: ArrayLike) -> jax.Array:
        """A full copy on every device."""
        return self._place(array, self.replicated)

    def split_rows(self, array: ArrayLike) -> jax.Array:
        """[steps, B] with the batch axis split over the devices."""
        return self._place(array, self.rows)

    @staticmethod
    def _place(array: ArrayLike, sharding: NamedSharding) -> jax.Array:
        # Every process holds the same host array, and gives its own devices their part of it.
        host = np.asarray(array)
        return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])
