"""The runs that are tormented: real images and training, of as small a network as will do."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.config.fields import default_config, make_phase
from purenoise_jax.models import MODELS
from purenoise_jax.models.one_block import TinyNet

NUM_EPOCHS = 4
STEPS_PER_EPOCH = 3
TOTAL_STEPS = NUM_EPOCHS * STEPS_PER_EPOCH
# The step whose checkpoint is never pruned, and how many others there are.
NAMED, KEEP = STEPS_PER_EPOCH, 2


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What differs between the runs.

    Attributes:
        model: the network.
        norm: its normalisation layer.
    """

    model: str
    norm: str

    @property
    def name(self) -> str:
        """Short, and fit for a file."""
        return f"{self.model}-{self.norm}"


# Both families of networks and both norms that route noise; and, to be quick, next to no network.
CASES = (Scenario("resnet8", "dar_bn"), Scenario("wrn10_1", "aux_bn"))
QUICK_CASES = (Scenario("one_block", "dar_bn"), Scenario("one_block", "aux_bn"))
MODELS["one_block"] = TinyNet


def case_named(name: str) -> Scenario:
    """The case of a name."""
    return next(case for case in CASES + QUICK_CASES if case.name == name)


def config_of(case: Scenario, **overrides: Any) -> ConfigDict:
    """Two epochs of ERM, two of OPeN, of three steps each, every step saved.

    Args:
        case: network and norm.
        **overrides: by dotted path.
    """
    config = default_config()
    config.update_from_flattened_dict(
        {
            "num_epochs": NUM_EPOCHS,
            "batch_size": 32,
            "num_devices": 1,
            "data.source": "digits",
            "data.name": "digits",
            "data.image_size": 8,
            "data.imbalance_ratio": 10.0,
            "data.limit": 24,
            "data.augment": ("crop",),
            "data.crop_padding": 1,
            "model.name": case.model,
            "model.norm": case.norm,
            "optimizer.warmup_epochs": 1,
            "optimizer.milestones": (3,),
            "checkpoint.epochs": (NAMED // STEPS_PER_EPOCH,),
            "checkpoint.every_epochs": 1,
            "checkpoint.every_steps": 1,
            "checkpoint.keep": KEEP,
            "eval.every_epochs": 2,
            "eval.batch_size": 64,
            "report": False,
        }
    )
    config.phases.deferred = make_phase(2, ("open",))
    config.update_from_flattened_dict(overrides)
    return config
