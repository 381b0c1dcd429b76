"""Manifold mixup: mixes the activations of pairs of rows at a random place, and their losses.

Source: Verma et al. 2019, section 2 and algorithm; their code for one ratio, one permutation and
one place per batch, and for the defaults (alpha = 2, places 0 to 2).
"""

from typing import Annotated

from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods.mixing import Alpha, with_mixtures
from purenoise_jax.methods.mixing_weights import OptionalBeta, OptionalWeightFn, optional_limits_of
from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.models.places import PLACES
from purenoise_jax.runtime.constraints import Names


def manifold_mixup(
    recipe: Recipe,
    stats: DataStats,
    *,
    alpha: Alpha = 2.0,
    places: Annotated[
        tuple[str, ...], Names(PLACES, needed=True), "places of the network; each step draws one"
    ] = ("input", "stage1", "stage2"),
    weight_fn: OptionalWeightFn = "none",
    beta: OptionalBeta = 2.0,
) -> Recipe:
    """Mixes each row with another, share * x + (1 - share) * x', and their losses in the same way.

    Every step draws one of the places, one share and one permutation. With alpha = 0, or a share of
    1, nothing is mixed. The losses are those of the recipe, so each of the two labels has the
    margin and the class weight that other methods give it.

    With a `weight_fn`, each row has a share of its own, as in `mfw` but for the losses too. Ye et
    al. 2021 (supplement, D.2) tried this with mixup, without an improvement.

    READING: natural rows are mixed with natural rows, and pure noise with pure noise.
    READING: the row itself has the larger share, see `draw_share`. The training accuracy counts a
    mixture as correct if the prediction is the label with the larger weight; it is therefore lower
    than that of unmixed images.
    DEVIATION: the authors' code uses the binary cross-entropy of each class's probability; this
    uses the loss of the recipe, a cross-entropy by default as in Zhang et al. 2018.
    """
    limits = optional_limits_of(weight_fn, stats.class_counts, beta)
    return with_mixtures(recipe, alpha=alpha, places=places, limits=limits)
