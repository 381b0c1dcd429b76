"""Long-tailed image classification with pure noise images (OPeN) and DAR-BN."""

from purenoise_jax.data.longtail import long_tail_indices
from purenoise_jax.data.sampling import balanced_indices
from purenoise_jax.methods.noise import replace_probs, replace_with_noise
from purenoise_jax.models import AuxBatchNorm, BatchNorm, DARBatchNorm, create_model

__all__ = [
    "AuxBatchNorm",
    "BatchNorm",
    "DARBatchNorm",
    "balanced_indices",
    "create_model",
    "long_tail_indices",
    "replace_probs",
    "replace_with_noise",
]
