"""The parts of a table of runs: cells, and the plan that all their configs follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from purenoise_jax.config import packaged
from purenoise_jax.config.fields import FIELDS
from purenoise_jax.config.flags import leave_out_drops
from purenoise_jax.config.identity import config_hash
from purenoise_jax.config.parts import beside
from purenoise_jax.methods.schedules import STEP
from purenoise_jax.runtime.errors import ConfigError

if TYPE_CHECKING:
    from purenoise_jax.analysis.figure_style import Drawing

    from .cells import Row

EPOCHS = 200
# Runs of every cell, as in the papers.
SEEDS = 4
# The mini tier. Two CPU cores take about two minutes for a run of 40 epochs.
MINI_EPOCHS, MINI_MODEL, MINI_SIZE = 40, "resnet8", 16
# A projector of 2048 x 2048 would take most of such a run's time.
MINI_VICREG = 256
# Read by path, because the config files lie elsewhere in an installed package.
MODULES: dict[str, ModuleType] = {
    name: beside(str(packaged.folder() / "__init__.py"), file)
    for name, file in (
        ("CIFAR-10-LT", "cifar10_lt"),
        ("CIFAR-100-LT", "cifar100_lt"),
        ("CIFAR-10", "cifar10"),
        ("CIFAR-100", "cifar100"),
    )
}
# Fields that each cell sets itself; --model and --epochs change two of them.
DECIDED = {
    "seed", "num_epochs", "init_from", "init_epoch", "model.name", "data.name", "data.augment",
    "data.imbalance_ratio", "data.indices", "data.rule",
}  # fmt: skip
# What small runs leave out, unless a table is about it.
SPARSE = {"eval.every_epochs": 0, "checkpoint.every_epochs": 0, "report": False}
# Images of the classes of a quick run, all together, if each were as large as the largest.
QUICK_IMAGES = 1000
# Fields that a started run may change, but that change the result of a new one.
STARTS = {"init_aux_bn"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Settings common to all runs of a table.

    Attributes:
        preset: preset of the configs.
        epochs: epochs of every run that has 200 in its source, to which all schedules are scaled.
        model: replaces every network of the table; "" = as published.
        quick: shrink data and networks so that the table finishes in minutes, as a smoke test; the
            numbers mean nothing.
        overrides: config fields by dotted path, applied last.
        mini: train a small network on small images, so that two CPU cores can fill a table. It
            tells whether a method does what it is for, and not how good it is at full size.
        places: data set -> folder, see `data_sets.places`; cells about others are not run.
    """

    preset: str = "paper"
    epochs: int = EPOCHS
    model: str = ""
    quick: bool = False
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    mini: bool = False
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def shortened(self) -> bool:
        """True if the schedule is shorter or longer than the papers'."""
        return self.epochs != EPOCHS

    @property
    def caveat(self) -> str:
        """The differences of the runs from the papers', shown beside every number."""
        return self._caveat(self.model or MINI_MODEL)

    def caveat_of(self, config: ConfigDict) -> str:
        """The differences of a run; those of the mini tier name its network and projector."""
        model = config.model
        smaller = self.mini and model.projector == "vicreg"
        projector = f"projector of {model.projector_width} features" if smaller else ""
        return ", ".join(filter(None, (self._caveat(model.name), projector)))

    def _caveat(self, model: str) -> str:
        if self.quick:
            return "quick, means nothing"
        changes = []
        if self.mini:
            changes.append(f"mini: {model} on images of {MINI_SIZE} x {MINI_SIZE}")
        if self.shortened:
            changes.append(f"{self.epochs} epochs for every {EPOCHS}, drops, if any, of 0.1")
        if self.model and not self.mini:
            changes.append(f"{self.model} throughout")
        changes += [
            f"{name}={value}"
            for name, value in self.overrides.items()
            if FIELDS[name].fixed or name in STARTS
        ]
        return ", ".join(changes)

    def field(self, name: str) -> Any:
        """The value of a config field in the runs, unless the table decides it."""
        return self.overrides.get(name, FIELDS[name].default)

    def models(self, *published: str) -> tuple[str, ...]:
        """The networks of a table: those published, unless `model` replaces them."""
        return (self.model,) if self.model else published

    def scaled(self, epochs: float) -> int:
        """The length in this plan of a part of a run that has `epochs` epochs in its source."""
        return round(epochs * self.epochs / EPOCHS)

    def config(
        self,
        dataset: str,
        method: str,
        *,
        model: str = "wrn28_10",
        augment: str = "",
        ir: float = 100,
        start: int | None = None,
        epochs: int = EPOCHS,
        second_epochs: int = 0,
        **overrides: Any,
    ) -> ConfigDict:
        """Builds the config of a cell.

        Args:
            dataset: one of `MODULES`.
            method: a method of that config file.
            model: the published network.
            augment: a key of `common.AUGMENTS`; "" = the config file's.
            ir: imbalance ratio, for long-tailed data.
            start: first epoch with noise, for balanced data.
            epochs: of the training in its source.
            second_epochs: of the second stage in its source; 0 = as many as its method usually has.
                A stage with drops of the learning rate has no other length.
            **overrides: config fields, with "__" for a dot.
        """
        model = self.model or model
        if self.quick:
            model = "wrn10_1" if model.startswith("wrn") else "resnet8"
        length = max(self.scaled(epochs), 1)
        args = {"method": method, "preset": self.preset, "epochs": length, "model": model}
        if augment:
            args["augment"] = augment
        if dataset.endswith("-LT"):
            args["ir"] = ir
        if start is not None:
            args["start"] = start
        text = ",".join(f"{name}={value}" for name, value in args.items())
        config = MODULES[dataset].get_config(text)
        fields = {name.replace("__", "."): value for name, value in overrides.items()}
        if second_epochs:
            fields["num_epochs"] = length + max(self.scaled(second_epochs), 1)
        return self.completed(config, fields, self.overrides, 100 if "100" in dataset else 10)

    def completed(
        self,
        config: ConfigDict,
        fields: dict[str, Any],
        given: Mapping[str, Any],
        classes: int,
    ) -> ConfigDict:
        """Sets the fields of a cell, those of the plan's length and size, and those given.

        Args:
            config: of a config file; changed in place.
            fields: of the cell, by dotted path.
            given: those of `overrides` that apply.
            classes: number of classes of the data.

        Raises:
            ConfigError: a field is given that the table decides.
        """
        schedule = fields.get("optimizer.schedule", config.optimizer.schedule)
        if self.shortened and schedule == STEP:
            # At a hundredth of the rate a few epochs would change almost nothing.
            config.optimizer.gamma = 0.1
        if self.mini:
            # Half the size of the images, so half the shift, and half the hole where there is one.
            fields = fields | {"data.image_size": MINI_SIZE, "data.crop_padding": 2}
            if "cutout" in fields.get("data.augment", config.data.augment):
                fields["data.cutout_size"] = MINI_SIZE // 2
            if config.model.projector == "vicreg":
                fields["model.projector_width"] = MINI_VICREG
            fields = SPARSE | fields
        wrong = [name for name in given if name in fields or name in DECIDED]
        if wrong:
            raise ConfigError(f"--set {wrong[0]}: the table itself decides this field")
        if self.quick:
            fields = SPARSE | fields | {"data.limit": max(QUICK_IMAGES // classes, 1)}
        config.update_from_flattened_dict(fields | dict(given))
        leave_out_drops(config, given)
        return config


@dataclasses.dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Attributes:
        setting: name of the group of rows that it belongs to.
        method: name of the row within the group.
        config: config of its runs, except the seed; None = it cannot be run here.
        published: numbers in the order of `Table.published`, as printed there; "" = none, as are
            those that are left out at the end. A table with `shots` has three each, joined by
            " / ".
        needs: the data, network or method that a cell without a config waits for.
        pretraining: config of a run, except the seed, whose network every run begins with; None =
            random parameters. Runs that begin so have a single phase.
    """

    setting: str
    method: str
    config: ConfigDict | None
    published: tuple[str, ...] = ()
    needs: str = ""
    pretraining: ConfigDict | None = None

    def __post_init__(self) -> None:
        if (self.config is None) != bool(self.needs):
            raise ValueError(f"{self.setting}, {self.method}: either a config, or what it needs")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of runs.

    Attributes:
        title: heading.
        source: publication of its numbers.
        cells: the cells in order.
        groups: also show the accuracy of the rarest fifth of the classes.
        published: headings of the columns of published numbers.
        note: differences between the rows and the runs behind the published numbers, in sentences.
        baselines: names of rows; the difference of every row to each of them in the same setting is
            shown, paired by seed.
        shots: show the accuracies of classes with few (below 20), medium and many (above 100)
            training images.
        figure: draws the table from its rows, at least one of which has a finished run; None = the
            table has no figure.
    """

    title: str
    source: str
    cells: tuple[Cell, ...]
    groups: bool = False
    published: tuple[str, ...] = ("paper", "reproduction")
    note: str = ""
    baselines: tuple[str, ...] = ()
    shots: bool = False
    figure: Callable[[Sequence[Row], Plan], Drawing] | None = None

    def __post_init__(self) -> None:
        for cell in self.cells:
            if len(cell.published) > len(self.published):
                raise ValueError(f"{cell.setting}, {cell.method}: a number without a column")

    @property
    def configs(self) -> tuple[ConfigDict, ...]:
        """The configs of all cells that can be run."""
        return tuple(cell.config for cell in self.cells if cell.config is not None)

    def unpublished(self) -> Table:
        """Returns the table without published numbers, their columns and cells that need them."""
        cells = (
            dataclasses.replace(cell, published=())
            for cell in self.cells
            if cell.config is not None
        )
        return dataclasses.replace(self, cells=tuple(cells), published=(), note="")

    def without_repeats(self) -> Table:
        """Returns the table without cells whose run is that of an earlier one."""
        cells: dict[str, Cell] = {}
        for number, cell in enumerate(self.cells):
            cells.setdefault(_key(cell) or str(number), cell)
        return dataclasses.replace(self, cells=tuple(cells.values()))


def _key(cell: Cell) -> str:
    """The same for two cells with the same runs; "" for a cell that has none."""
    configs = [config for config in (cell.config, cell.pretraining) if config is not None]
    # The file of weights is not in the hash, because a run may find it elsewhere later.
    return " ".join(f"{config_hash(config)} {config.model.pretrained}" for config in configs)
