"""Batch sizes over the training ratio (Shwartz-Ziv et al. 2023, appendix A.1, figure 6).

READING: sizes are not given but for the 128 of the baseline, nor whether the learning rate follows
the size; it does not here. All sizes have the same epochs, so small batches have more steps.
"""

from functools import partial

from ..plan import Plan, Table
from .curves import BY_BASELINE, BY_ITSELF, curve_config, curve_table

BASELINE = 128
SIZES = (16, 32, 64, 128, 256, 512)
MINI_SIZES = (32, 128, 512)


def ratio_batch_size(plan: Plan) -> Table:
    """Batch sizes over the training ratio of two classes."""
    sizes = MINI_SIZES if plan.mini or plan.quick else SIZES
    return curve_table(
        plan,
        "batch size",
        {f"batch {size}": partial(curve_config, plan, batch_size=size) for size in sizes},
        baseline=f"batch {BASELINE}",
        divisors=(BY_ITSELF, BY_BASELINE),
    )
