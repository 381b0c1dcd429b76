"""Learning rate schedules by epoch.

Source: for drops, Zada et al. 2022, appendix D.2; Cao et al. 2019; Lee and Lee 2023, section 4. For
the cosine, Loshchilov and Hutter 2017, equation 5, without restarts and with a last rate of 0.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

STEP, COSINE = "step", "cosine"
SCHEDULES = (STEP, COSINE)


def learning_rates(
    num_epochs: int,
    *,
    learning_rate: float,
    warmup_epochs: int,
    milestones: Sequence[int],
    gamma: float,
    schedule: str = STEP,
) -> np.ndarray:
    """Returns the learning rate of every epoch, which is constant within the epoch.

    Epoch e < warmup_epochs = W has learning_rate * (e + 1) / W. From then on "step" multiplies the
    rate by `gamma` at every milestone that has been reached, and "cosine" has
    learning_rate * (1 + cos(pi * (e - W) / (E - W))) / 2, which would be 0 in epoch E.

    DEVIATION: Ren et al. 2020 change the rate of a cosine in every step. Here every epoch has one
    rate, as in the code of Zhong et al. 2021. The cosine begins after the warm-up.

    Args:
        num_epochs: E.
        learning_rate: the rate after the warm-up.
        warmup_epochs: length of the warm-up; 0 = none.
        milestones: of "step": epochs, counted from 0, at which the rate drops.
        gamma: of "step": factor of each drop.
        schedule: one of `SCHEDULES`.

    Returns:
        f64[E].
    """
    epoch = np.arange(num_epochs)
    if schedule == COSINE:
        share = (epoch - warmup_epochs) / max(num_epochs - warmup_epochs, 1)
        rate = learning_rate * (1 + np.cos(np.pi * share)) / 2
    else:
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
