"""FLOPs of a traced function."""

from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.interpreters import partial_eval


def flops_of(function: Any, *args: Any) -> int:
    """Counts the FLOPs (two per multiply-add) of the convolutions and products of a result.

    Each pass of a loop counts if their number is known before it starts, otherwise one.

    Args:
        function: to be traced.
        *args: its arguments, arrays or their shapes.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _count(used)


def _count(jaxpr: Jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        out: Any = eqn.outvars[0].aval
        if eqn.primitive.name == "conv_general_dilated":
            kernel: Any = eqn.invars[1].aval
            spec = eqn.params["dimension_numbers"].rhs_spec
            # Each output is a sum over the kernel's other axes.
            total += 2 * out.size * kernel.size // kernel.shape[spec[0]]
        elif eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            left: Any = eqn.invars[0].aval
            depth = 1
            for axis in contracted:
                depth *= left.shape[axis]
            total += 2 * out.size * depth
        rounds = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for value in eqn.params.values():
            if isinstance(value, ClosedJaxpr):
                total += rounds * _count(value.jaxpr)
            elif isinstance(value, Jaxpr):
                total += rounds * _count(value)
    return total
