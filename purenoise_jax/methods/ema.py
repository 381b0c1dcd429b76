"""Evaluates a run with an exponential moving average (EMA) of its weights.

Source: Shwartz-Ziv et al. 2023, section 4, which gives no decay.
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.recipe import Memory, Observed, Recipe
from purenoise_jax.runtime.constraints import Real

NAME = "ema"


def ema(
    recipe: Recipe,
    stats: DataStats,
    *,
    decay: Annotated[
        float, Real(0, 1, below=True), "share of the average that each step keeps"
    ] = 0.999,
) -> Recipe:
    """Averages parameters and running statistics after every step; evaluation uses the average.

    READING: after t averaged steps the average keeps a share of min(decay, (1 + t) / (10 + t)), the
    customary warm-up. The first step replaces the average, so it contains no initial weights. With
    a decay of 0, evaluation uses the weights of the last step.
    READING: a phase that resets the classifier begins a new average.
    """
    del stats

    def init(variables: Any) -> Any:
        # Copies, because each step donates the state, which holds the average and the variables.
        return {"steps": jnp.zeros((), jnp.int32), **jax.tree.map(jnp.copy, dict(variables))}

    def update(average: Any, observed: Observed) -> Any:
        variables = observed.variables
        count = average["steps"].astype(jnp.float32)
        kept = jnp.where(count > 0, jnp.minimum(decay, (1 + count) / (10 + count)), 0)
        mixed = {
            name: jax.tree.map(
                lambda old, new: (kept * old + (1 - kept) * new).astype(old.dtype),
                average[name],
                variables[name],
            )
            for name in variables
        }
        return {"steps": average["steps"] + 1, **mixed}

    def eval_variables(state: Any) -> dict[str, Any]:
        return {name: tree for name, tree in state.extra[NAME].items() if name != "steps"}

    return dataclasses.replace(
        recipe,
        memory={**recipe.memory, NAME: Memory(init, update)},
        eval_variables=eval_variables,
    )
