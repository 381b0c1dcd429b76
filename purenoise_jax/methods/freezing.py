"""Freezing: parts of the network stay as they are in a phase, whatever its methods are."""

from collections.abc import Collection

from purenoise_jax.methods.recipe import Recipe
from purenoise_jax.methods.second_stage import over_fixed_backbone
from purenoise_jax.models.projectors import PROJECTOR

BACKBONE, STEM, HEAD = "backbone", "stem", "head"
# Parts of a network. The names of its parameters begin with those of its parts; the layers before
# the first stage are the stem.
FREEZABLE = (BACKBONE, STEM, "stage1", "stage2", "stage3", "stage4")
_STEM = ("conv0", "bn0")


def in_part(path: tuple[str, ...], part: str) -> bool:
    """Returns True for the parameters of a part.

    Args:
        path: of a parameter.
        part: of `FREEZABLE`; the backbone is all but the head and the projector.
    """
    module = path[0]
    if part == BACKBONE:
        return module not in (HEAD, PROJECTOR)
    if part == STEM:
        return module in _STEM
    return module == part or module.startswith(f"{part}_")


def with_frozen(recipe: Recipe, parts: Collection[str]) -> Recipe:
    """Returns a recipe in which parts of the network do not train.

    Their parameters are constants, without weight decay. As in second stages with a fixed backbone,
    the norms of the whole network use their running statistics, which stay as they are, and no
    activations are dropped.

    Args:
        recipe: changed in `trainable`, `train_mode` and `dropout`.
        parts: of `FREEZABLE`; none = the recipe as it is.
    """
    if not parts:
        return recipe
    trains = recipe.trainable

    def trainable(path: tuple[str, ...]) -> bool:
        return trains(path) and not any(in_part(path, part) for part in parts)

    return over_fixed_backbone(recipe, trainable=trainable)
