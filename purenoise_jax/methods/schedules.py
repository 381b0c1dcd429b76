"""Learning rate schedule by epoch.

Source: Zada et al. 2022, appendix D.2; Cao et al. 2019; Lee and Lee 2023, section 4.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np


def learning_rates(
    num_epochs: int,
    *,
    learning_rate: float,
    warmup_epochs: int,
    milestones: Sequence[int],
    gamma: float,
) -> np.ndarray:
    """Returns the learning rate of every epoch, which is constant within the epoch.

    Epoch e < warmup_epochs has learning_rate * (e + 1) / warmup_epochs; from then on the rate is
    multiplied by `gamma` at every milestone that has been reached.

    Args:
        num_epochs: E.
        learning_rate: the rate after the warm-up.
        warmup_epochs: length of the warm-up; 0 = none.
        milestones: epochs, counted from 0, at which the rate drops.
        gamma: factor of each drop.

    Returns:
        f64[E].
    """
    epoch = np.arange(num_epochs)
    drops = np.sum([epoch >= m for m in milestones], axis=0) if len(milestones) else 0
    rate = learning_rate * np.power(gamma, drops, dtype=np.float64) * np.ones(num_epochs)
    warm = epoch < warmup_epochs
    rate[warm] = learning_rate * (epoch[warm] + 1) / max(warmup_epochs, 1)
    return rate


def by_step(rates: np.ndarray, steps_per_epoch: int) -> Callable[[jax.Array], jax.Array]:
    """Turns rates f64[E] by epoch into a function of the number of completed steps."""
    # float32, or float64 under `jax_enable_x64`.
    table = jnp.asarray(rates, float)
    return lambda step: table[jnp.minimum(step // steps_per_epoch, table.size - 1)]
