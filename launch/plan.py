"""What a table of runs is made of: cells, and the plan that all their configs follow."""

import dataclasses
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from configs import cifar10, cifar10_lt, cifar100, cifar100_lt
from purenoise_jax.config.fields import FIELDS
from purenoise_jax.runtime.errors import ConfigError

EPOCHS = 200
MODULES: dict[str, ModuleType] = {
    "CIFAR-10-LT": cifar10_lt,
    "CIFAR-100-LT": cifar100_lt,
    "CIFAR-10": cifar10,
    "CIFAR-100": cifar100,
}
# Fields that make a cell what it is; --model and --epochs are there for two of them.
DECIDED = {
    "seed", "num_epochs", "init_from", "init_epoch", "model.name", "data.name", "data.augment",
    "data.imbalance_ratio", "data.indices", "data.rule",
}  # fmt: skip
# Fields that a started run may change, but that change what a new one comes to.
STARTS = {"init_aux_bn"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all runs of a table have in common.

    Attributes:
        preset: of the configs.
        epochs: of every run; the papers' schedule is scaled to it.
        model: in place of every network of the table; "" = as published.
        quick: shrink data and networks so that the table runs through in minutes, for a look at the
            machinery; the numbers mean nothing.
        overrides: config fields by dotted path, applied last.
    """

    preset: str = "paper"
    epochs: int = EPOCHS
    model: str = ""
    quick: bool = False
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def shortened(self) -> bool:
        """Whether the schedule is not the papers'."""
        return self.epochs != EPOCHS

    @property
    def caveat(self) -> str:
        """What must be said beside every number, as the runs are not the papers'."""
        if self.quick:
            return "quick, means nothing"
        changes = []
        if self.shortened:
            changes.append(f"{self.epochs} epochs instead of {EPOCHS}, drops of 0.1")
        if self.model:
            changes.append(f"{self.model} throughout")
        changes += [
            f"{name}={value}"
            for name, value in self.overrides.items()
            if FIELDS[name].fixed or name in STARTS
        ]
        return ", ".join(changes)

    def models(self, *published: str) -> tuple[str, ...]:
        """The networks of a table: those published, unless another takes their place."""
        return (self.model,) if self.model else published

    def config(
        self,
        dataset: str,
        method: str,
        *,
        model: str = "wrn28_10",
        augment: str = "",
        ir: float = 100,
        start: int | None = None,
        **overrides: Any,
    ) -> ConfigDict:
        """The config of a cell.

        Args:
            dataset: one of `MODULES`.
            method: of that config file.
            model: as published.
            augment: of `common.AUGMENTS`; "" = the config file's.
            ir: imbalance ratio, for long-tailed data.
            start: first epoch with noise, for balanced data.
            **overrides: config fields, with "__" for a dot.
        """
        model = self.model or model
        if self.quick:
            model = "wrn10_1" if model.startswith("wrn") else "resnet8"
        args = {"method": method, "preset": self.preset, "epochs": self.epochs, "model": model}
        if augment:
            args["augment"] = augment
        if dataset.endswith("-LT"):
            args["ir"] = ir
        if start is not None:
            args["start"] = start
        text = ",".join(f"{name}={value}" for name, value in args.items())
        config = MODULES[dataset].get_config(text)
        if self.shortened:
            # At a hundredth of the rate a few epochs would change next to nothing.
            config.optimizer.gamma = 0.1
        fields = {name.replace("__", "."): value for name, value in overrides.items()}
        wrong = [name for name in self.overrides if name in fields or name in DECIDED]
        if wrong:
            raise ConfigError(f"--set {wrong[0]}: the table itself decides this field")
        if self.quick:
            classes = 100 if "100" in dataset else 10
            fields |= {"data.limit": 600 // classes, "eval.every_epochs": 0}
            fields |= {"checkpoint.every_epochs": 0, "report": False}
        config.update_from_flattened_dict(fields | self.overrides)
        return config


@dataclasses.dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Attributes:
        setting: what the rows of a group share.
        method: tells the entry from the others of its group.
        config: of its runs, but for the seed.
        paper: published by Zada et al., as printed there; "" = nothing.
        reproduction: by Lee and Lee.
    """

    setting: str
    method: str
    config: ConfigDict
    paper: str = ""
    reproduction: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of runs.

    Attributes:
        title: what it is.
        source: where its numbers were published.
        cells: in order.
        groups: also show the accuracy of the rarest fifth of the classes.
    """

    title: str
    source: str
    cells: tuple[Cell, ...]
    groups: bool = False
