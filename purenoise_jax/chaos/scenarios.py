"""The runs into which faults are injected: real images and training, but tiny networks."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.config.fields import default_config
from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.models import MODELS
from purenoise_jax.models.one_block import TinyNet

NUM_EPOCHS = 4
STEPS_PER_EPOCH = 3
TOTAL_STEPS = NUM_EPOCHS * STEPS_PER_EPOCH
# The step whose checkpoint is never pruned, and the number of other checkpoints kept.
NAMED, KEEP = STEPS_PER_EPOCH, 2


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A run; scenarios differ only in network and norm.

    Attributes:
        model: the network.
        norm: its normalisation layer.
    """

    model: str
    norm: str

    @property
    def name(self) -> str:
        """A short name, legal in a path."""
        return f"{self.model}-{self.norm}"


# Both families of networks and both norms that route noise; the quick ones use a minimal network.
SCENARIOS = (Scenario("resnet8", "dar_bn"), Scenario("wrn10_1", "aux_bn"))
QUICK_SCENARIOS = (Scenario("one_block", "dar_bn"), Scenario("one_block", "aux_bn"))
MODELS["one_block"] = TinyNet


def scenario_named(name: str) -> Scenario:
    """Returns the scenario with this name."""
    return next(scenario for scenario in SCENARIOS + QUICK_SCENARIOS if scenario.name == name)


def config_of(scenario: Scenario, **overrides: Any) -> ConfigDict:
    """Two epochs of ERM and two of OPeN with three steps each; every step is saved.

    Args:
        scenario: network and norm.
        **overrides: config values by dotted path.
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
            "model.name": scenario.model,
            "model.norm": scenario.norm,
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
