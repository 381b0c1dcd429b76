"""Weight functions of major feature weakening (MFW): the largest share of a partner, by class size.

Source: Ye et al. 2021, supplement. It describes the effect of the function and of its scale beta;
the formula is in the main text, which was not available. The functions here are reconstructions.
"""

from collections import ChainMap
from collections.abc import Callable
from typing import Annotated

import numpy as np

from purenoise_jax.runtime.constraints import OneOf, Real
from purenoise_jax.runtime.errors import unknown

# (images per class int[K], beta) -> largest share of the partner in a mixture, by the class of the
# row: float[K] in [0, 1/2].
WeightFunction = Callable[[np.ndarray, float], np.ndarray]


def sigmoid(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Half the sigmoid of (n - m) / (beta * range) for classes of n images, float[K].

    Here m is halfway between the smallest and the largest class, and the range their difference. A
    small beta gives 0 or 1/2, a large one almost 1/4 for all.
    """
    return (1 + np.tanh(_scaled(class_counts, beta))) / 4


def sigmoid_minmax(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Returns `sigmoid` scaled to 0 for the smallest and 1/2 for the largest class, float[K]."""
    return _minmax(np.tanh(_scaled(class_counts, beta))) / 2


def power_minmax(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Returns r ** beta / 2, with r from 0 (smallest class) to 1 (largest); float[K]."""
    return _minmax(np.asarray(class_counts, np.float64)) ** beta / 2


def constant(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Returns 1/2 for all classes, float[K]."""
    del beta
    return np.full(len(class_counts), 0.5)


WEIGHT_FUNCTIONS: dict[str, WeightFunction] = {
    "sigmoid": sigmoid,
    "sigmoid_minmax": sigmoid_minmax,
    "power_minmax": power_minmax,
    "constant": constant,
}

WeightFn = Annotated[
    str, OneOf(WEIGHT_FUNCTIONS), "largest share of the partner, by the size of the row's class"
]
Beta = Annotated[
    float,
    Real(0, above=True),
    "scale of the weight function; the source has 2 for long tails and 0.01 for steps",
]
# For methods that mix all classes alike without a function. A view of the names, so that functions
# added later are among them.
OptionalWeightFn = Annotated[
    str,
    OneOf(ChainMap({"none": constant}, WEIGHT_FUNCTIONS)),
    "draws a share for each row, as mfw does; none = one share for all rows of a step",
    "none",
]
OptionalBeta = Annotated[Beta, 2.0]


def limits_of(weight_fn: str, class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Returns the largest share of the partner by the class of the row, f32[K] in [0, 1/2].

    Args:
        weight_fn: a key of `WEIGHT_FUNCTIONS`.
        class_counts: int[K], training images per class, each at least 1.
        beta: scale of the function, above 0.

    Raises:
        ConfigError: the function is unknown.
    """
    if weight_fn not in WEIGHT_FUNCTIONS:
        raise unknown("weight_fn", weight_fn, WEIGHT_FUNCTIONS)
    return WEIGHT_FUNCTIONS[weight_fn](np.asarray(class_counts), beta).astype(np.float32)


def optional_limits_of(weight_fn: str, class_counts: np.ndarray, beta: float) -> np.ndarray | None:
    """Returns `limits_of`, or None if the function is "none"."""
    return None if weight_fn == "none" else limits_of(weight_fn, class_counts, beta)


def _minmax(x: np.ndarray) -> np.ndarray:
    """Scales numbers to [0, 1]; equal ones become 0."""
    span = x.max() - x.min()
    return (x - x.min()) / (span if span > 0 else 1)


def _scaled(class_counts: np.ndarray, beta: float) -> np.ndarray:
    """Half the argument u of the sigmoid, because sigmoid(u) = (1 + tanh(u / 2)) / 2."""
    counts = np.asarray(class_counts, np.float64)
    middle, span = (counts.max() + counts.min()) / 2, counts.max() - counts.min()
    return (counts - middle) / (span if span > 0 else 1) / beta / 2
