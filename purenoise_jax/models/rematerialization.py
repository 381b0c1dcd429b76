"""Rematerialisation: activations that the backward pass computes again instead of keeping them.

It takes less memory and more time. The variables of a network and their names stay the same, and so
do the keys of dropout.

Source: Chen et al. 2016, "Training deep nets with sublinear memory cost".
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

from flax import linen as nn

# Layers whose activations are computed again: none, each normalisation layer, each block of a
# stage.
REMATS = ("none", "norm", "block")


def rematerialized(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Returns a module class of which the backward pass knows only the inputs.

    Args:
        make: a module class, or a partial of one, as which the result is returned.
    """
    if isinstance(make, partial):
        return partial(rematerialized(make.func), *make.args, **make.keywords)
    return _of_class(make)


def without_remat(model: Any) -> Any:
    """Returns a model that keeps all activations, with the same variables."""
    return model.clone(remat="none") if getattr(model, "remat", "none") != "none" else model


@functools.cache
def _of_class(kind: Any) -> Any:
    # One class for each, so that equal networks stay equal.
    return nn.remat(kind)
