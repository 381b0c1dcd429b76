"""A tiny long-tailed problem that trains in seconds."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from purenoise_jax import DARBatchNorm
from purenoise_jax.config.fields import default_config
from purenoise_jax.models import MODELS
from purenoise_jax.models.dropout import Dropout
from purenoise_jax.models.places import Mix, unmixed

COUNTS = (24, 12, 6, 3)
STEPS_PER_EPOCH = 3  # 45 images in batches of 16, the last with 13


def write_npz(path: Path, counts: tuple[int, ...] = COUNTS, size: int = 8) -> Path:
    """Writes images whose class is given by their brightest quadrant, plus noise; balanced test set."""
    rng = np.random.default_rng(0)

    def images(labels: np.ndarray) -> np.ndarray:
        x = rng.normal(90, 25, (len(labels), size, size, 3))
        half = size // 2
        for row, label in enumerate(labels):
            top, left = divmod(int(label) % 4, 2)
            x[row, top * half : (top + 1) * half, left * half : (left + 1) * half] += 70
        return np.clip(x, 0, 255).astype(np.uint8)

    train = np.concatenate([np.full(n, k) for k, n in enumerate(counts)])
    rng.shuffle(train)
    test = np.repeat(np.arange(len(counts)), 10)
    np.savez(
        path,
        train_images=images(train),
        train_labels=train,
        test_images=images(test),
        test_labels=test,
    )
    return path


def tiny_config(npz: Path, **overrides: Any) -> ConfigDict:
    """ERM for two epochs, then OPeN for two; `overrides` by dotted path."""
    config = default_config()
    config.update_from_flattened_dict(
        {
            "num_epochs": 4,
            "batch_size": 16,
            "num_devices": 1,
            "data.source": "npz",
            "data.path": str(npz),
            "data.profile": "natural",
            "data.augment": ("crop",),
            "data.crop_padding": 1,
            "model.name": "tiny",
            "optimizer.warmup_epochs": 1,
            "optimizer.milestones": (3,),
            "checkpoint.epochs": (2,),
            "checkpoint.every_epochs": 1,
            "checkpoint.keep": 2,
            "eval.every_epochs": 2,
            "eval.batch_size": 16,
            "report": False,
        }
    )
    config.phases.deferred = ConfigDict({"start_epoch": 2, "methods": ("open",)})
    if "num_epochs" in overrides and overrides["num_epochs"] <= 3:
        config.optimizer.milestones = ()
    config.update_from_flattened_dict(overrides)
    return config


class TinyNet(nn.Module):
    """One convolution, one norm, dropout and one linear head, which compile fast."""

    num_classes: int
    norm: Callable[..., nn.Module] = DARBatchNorm
    dtype: Any = None
    dropout_rate: float = 0.0
    head: Callable[..., nn.Module] = nn.Dense
    places: ClassVar[Sequence[str]] = ("input", "features")

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        noise_mask: jax.Array | None = None,
        valid: jax.Array | None = None,
        *,
        train: bool,
        mix: Mix = unmixed,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        x = nn.Conv(8, (3, 3), use_bias=False, name="conv")(mix("input", images))
        norm = self.norm(use_running_average=not train, name="norm")
        x = nn.relu(norm(x, noise_mask, valid))
        x = Dropout(self.dropout_rate, deterministic=not train)(x)
        b, h, w, c = x.shape
        features = x.reshape(b, 2, h // 2, 2, w // 2, c).mean(axis=(2, 4)).reshape(b, -1)
        features = mix("features", features)
        return self.head(self.num_classes, name="head")(features), {"features": features}


# With dropout, so that tests cover its keys.
MODELS["tiny"] = partial(TinyNet, dropout_rate=0.2)
