"""Classifier heads: the last layer of every network."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype, Initializer

# PyTorch's default for a linear layer: uniform within 1 / sqrt(fan_in).
TORCH_UNIFORM: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Variables that evaluation may give to a causal head.
EFFECT = "effect"

# Name of the scales of a `Scaled` head. A recipe trains them only if it names them.
CLASS_SCALE = "class_scale"
# Name of the scale of a `ScaledCosine` head, which always trains.
COSINE_SCALE = "cosine_scale"


class Linear(nn.Module):
    """Linear classifier; as in PyTorch, its bias is drawn uniformly within 1 / sqrt(fan_in).

    The product is computed in float32, or wider if the features are, also after a network in
    bfloat16. Logits in bfloat16 would have 8 bits: with many classes two of them are often equal,
    and `argmax` gives every tie to the smaller index, which in a long tail is the larger class.

    Attributes:
        num_classes: K.
        kernel_init: initialiser of the kernel.
    """

    num_classes: int
    kernel_init: Initializer = TORCH_UNIFORM

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps features [B, F] to logits [B, K], float32 or wider."""
        bound = 1 / math.sqrt(features.shape[-1])

        def bias_init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        dense = nn.Dense(
            self.num_classes,
            # Otherwise accelerators multiply float32 in fewer bits.
            precision=jax.lax.Precision.HIGHEST,
            kernel_init=self.kernel_init,
            bias_init=bias_init,
            name="fc",
        )
        return dense(features.astype(jnp.promote_types(features.dtype, jnp.float32)))


class Scaled(Linear):
    """Linear classifier whose logits, bias included, are multiplied by one scale per class.

    The scales are 1 at first and train only in methods that name them (learnable weight scaling);
    until then the classifier is `Linear`, with arrays of the same names.

    Source: Kang et al. 2020, section 4.2, and their code (TauNormClassifier.py).

    Attributes:
        num_classes: K.
        kernel_init: initialiser of the kernel.
    """

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps features [B, F] to logits [B, K], float32 or wider."""
        logits = super().__call__(features)
        scale = self.param(CLASS_SCALE, nn.initializers.ones, (self.num_classes,), jnp.float32)
        return logits * scale[None]


class Cosine(nn.Module):
    """Cosines between features and one weight vector per class, without a bias.

    They are for methods that scale them in their loss, such as LDAM; see `ScaledCosine`.

    Source: Cao et al. 2019, their code (NormedLinear).

    Attributes:
        num_classes: K.
        kernel_init: unused, because only the direction of a weight vector counts. As in the
            authors' code, the vectors are drawn uniformly from [-1, 1] and scaled to length 1.
    """

    num_classes: int
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps features [B, F] to cosines [B, K] in [-1, 1], float32 or wider."""

        def init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype) -> jax.Array:
            drawn = jax.random.uniform(key, shape, dtype, -1, 1)
            return drawn / jnp.linalg.norm(drawn, axis=0, keepdims=True)

        wide = jnp.promote_types(features.dtype, jnp.float32)
        kernel = self.param("kernel", init, (features.shape[-1], self.num_classes), jnp.float32)
        return jnp.matmul(
            unit_length(features.astype(wide), 1),
            unit_length(kernel.astype(wide), 0),
            precision=jax.lax.Precision.HIGHEST,
        )


class ScaledCosine(Cosine):
    """Cosines times one scale for all classes, which trains with the rest.

    The logits lie in [-scale, scale]. With cosines alone no cross-entropy of K classes would be
    below log(1 + (K - 1) / e ** 2), which is 4.9 for 1,000 classes.

    Source: Gidaris and Komodakis 2018 (cosine similarity with a learnt scale), and their code for
    the scale's first value.

    READING: a fixed scale of 16 is usual, too (Liu et al. 2019, and the code of Kang et al. 2020).

    DEVIATION: their code adds one bias to all logits, on which no softmax depends.

    Attributes:
        num_classes: K.
        kernel_init: unused, see `Cosine`.
        first_scale: the scale before the first step.
    """

    first_scale: float = 10.0

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps features [B, F] to logits [B, K], float32 or wider."""
        cosines = super().__call__(features)
        first = nn.initializers.constant(self.first_scale)
        scale = self.param(COSINE_SCALE, first, (), jnp.float32)
        return scale.astype(cosines.dtype) * cosines


class Causal(nn.Module):
    """Multi-head normalised classifier, from which the effect of a mean feature can be taken out.

    Features and weight vectors are cut into parts of equal size. The logit of a class is the sum
    over the parts of cosine * |w| / (|w| + gamma), times tau / num_heads, without a bias.

    Where variables of the collection `EFFECT` are given, "mean_feature" [F] and "alpha" [], the
    features are x / |x| without alpha times its projection on the mean feature, in every part. The
    network itself creates none; the method "tde" gives them in evaluation.

    Source: Tang et al. 2020, the multi-head normalised classifier and the total direct effect, and
    their code (CausalNormClassifier.py) for the initialiser and the defaults.

    Attributes:
        num_classes: K.
        kernel_init: unused; the authors draw uniformly within 1 / sqrt(F).
        num_heads: number of parts, a divisor of F.
        tau: scale of the logits, which lie in [-tau, tau] unless an effect is taken out.
        gamma: added to the length of the weight vectors.
    """

    num_classes: int
    kernel_init: Initializer | None = None
    num_heads: int = 2
    tau: float = 16.0
    gamma: float = 1 / 32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps features [B, F] to logits [B, K], float32 or wider."""
        wide = jnp.promote_types(features.dtype, jnp.float32)

        def parts(vectors: jax.Array) -> jax.Array:
            shape = (len(vectors), self.num_heads, vectors.shape[1] // self.num_heads)
            return unit_length(vectors.astype(wide).reshape(shape), 2)

        x = parts(features)
        if self.has_variable(EFFECT, "mean_feature"):
            mean = parts(self.get_variable(EFFECT, "mean_feature")[None])
            along = (x * mean).sum(axis=2, keepdims=True) * mean
            x -= jnp.asarray(self.get_variable(EFFECT, "alpha"), wide) * along
        shape = (features.shape[-1], self.num_classes)
        w = self.param("kernel", TORCH_UNIFORM, shape, jnp.float32).astype(wide)
        w = w.reshape(self.num_heads, -1, self.num_classes)
        w /= _length(w, 1) + self.gamma
        product = jnp.einsum("bhf,hfk->bk", x, w, precision=jax.lax.Precision.HIGHEST)
        return self.tau / self.num_heads * product


def _length(x: jax.Array, axis: int) -> jax.Array:
    """Returns the length of vectors, with axes kept; at a zero vector its gradient is zero."""
    square = jnp.square(x).sum(axis=axis, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def unit_length(x: jax.Array, axis: int) -> jax.Array:
    """Scales vectors to length 1; a zero vector stays zero, with a gradient of zero."""
    square = jnp.square(x).sum(axis=axis, keepdims=True)
    inverse = jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)
    return x * inverse


HEADS: dict[str, Callable[..., nn.Module]] = {
    "linear": Linear,
    "scaled": Scaled,
    "cosine": Cosine,
    "scaled_cosine": ScaledCosine,
    "causal": Causal,
}
