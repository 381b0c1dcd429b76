"""Class shares in training, and evaluation where those of the images to classify are known."""

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.methods.recipe import Postprocess, Recipe


def trained_shares(recipe: Recipe, class_counts: np.ndarray) -> np.ndarray | None:
    """Returns the share of each class in the loss that a network was trained with, f64[K].

    It is the share among the images that are drawn, times the weight of the class.

    Args:
        recipe: of the phase that the network was trained in.
        class_counts: int[K], training images per class.

    Returns:
        None if the method draws classes by what it has learnt, so that the shares are not known.
    """
    if recipe.class_draw is not None:
        return None
    drawn = class_counts if recipe.class_probs is None else recipe.class_probs
    weights = 1.0 if recipe.class_weights is None else recipe.class_weights
    mass = np.asarray(drawn, np.float64) * np.asarray(weights, np.float64)
    shares: np.ndarray = mass / mass.sum()
    return shares


def takes_prior(postprocess: Postprocess, num_classes: int) -> bool:
    """Returns whether the logits of a method depend on the class frequencies that it is given."""
    zeros = jnp.zeros((1, num_classes), jnp.float32)
    uneven = jax.nn.log_softmax(jnp.arange(num_classes, dtype=jnp.float32))
    return bool(jnp.any(postprocess(zeros, uneven) != postprocess(zeros)))


def for_evaluation(recipe: Recipe, class_counts: np.ndarray) -> Postprocess:
    """Returns the recipe's `postprocess`, which uses known class shares wherever the recipe can.

    A method whose loss accounts for the class sizes, such as balanced softmax, says itself how the
    shares enter. A recipe that draws or weights classes fits the shares that it gives them; known
    ones add log(known / fitted) to the logits (Saerens et al. 2002), as PC-softmax does for the
    shares of the training images (Hong et al. 2021). All other recipes leave the logits, as the
    softmax that Hong et al. compare with: for plain training, PC-softmax is `erm` with tau = 1.

    Without known shares the logits are those of `postprocess`.

    Args:
        recipe: of the phase that the network is trained in.
        class_counts: int[K], training images per class.
    """
    own = recipe.postprocess
    if recipe.class_probs is None and recipe.class_weights is None:
        return own
    fitted = trained_shares(recipe, class_counts)
    if fitted is None or takes_prior(own, len(class_counts)):
        return own
    shift = jnp.asarray(np.log(fitted), jnp.float32)

    def postprocess(logits: jax.Array, log_prior: jax.Array | None = None) -> jax.Array:
        return own(logits) if log_prior is None else own(logits) + (log_prior - shift)[None]

    return postprocess
