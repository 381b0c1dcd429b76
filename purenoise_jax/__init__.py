"""Long-tailed image classification with pure noise images (OPeN) and DAR-BN."""

from typing import TYPE_CHECKING, Any

from purenoise_jax.data.longtail import long_tail_indices
from purenoise_jax.data.sampling import balanced_indices
from purenoise_jax.methods.noise import replace_probs, replace_with_noise
from purenoise_jax.models import AuxBatchNorm, BatchNorm, DARBatchNorm, create_model

if TYPE_CHECKING:
    from purenoise_jax.inference.classifier import load

__all__ = [
    "AuxBatchNorm",
    "BatchNorm",
    "DARBatchNorm",
    "balanced_indices",
    "create_model",
    "load",
    "long_tail_indices",
    "replace_probs",
    "replace_with_noise",
]


def __getattr__(name: str) -> Any:
    """Imports `load` at its first use, because it needs much that networks and norms do not."""
    if name == "load":
        from purenoise_jax.inference.classifier import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
