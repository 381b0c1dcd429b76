"""Plans the runs of a table: their configs, workdirs and cost."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from purenoise_jax.config.fields import default_config
from purenoise_jax.config.frozen_fields import refuse_unnamed_networks, used_networks
from purenoise_jax.config.identity import config_hash
from purenoise_jax.config.resolve import resolved
from purenoise_jax.config.validation import validate
from purenoise_jax.data.longtail import long_tail_counts
from purenoise_jax.methods import METHODS, as_method
from purenoise_jax.models import create_model
from purenoise_jax.runtime.errors import CheckpointError, ConfigError
from purenoise_jax.runtime.files import read_bytes, read_json
from purenoise_jax.runtime.flops import flops_of
from purenoise_jax.runtime.paths import expand

from .data_sets import SIZES
from .plan import Cell, Table
from .step_cost import passes

# Sources of data that have no name but that of their file or folder.
OWN_DATA = ("npz", "folder", "list")


@dataclasses.dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        config: its complete config, seed included.
        workdir: its own workdir, named after data, network and method.
        first_epoch: number of epochs taken over from another run, 0 for none.
    """

    config: ConfigDict
    workdir: Path
    first_epoch: int = 0

    def check(self) -> None:
        """Checks the config, and that it names the networks of other runs that it uses.

        Raises:
            ConfigError: as `validate` and `refuse_unnamed_networks`.
        """
        validate(self.config)
        refuse_unnamed_networks(self.config)

    @property
    def name(self) -> str:
        """Its folder below the root of all runs, for people."""
        return f"{self.workdir.parent.name}/{self.workdir.name}"

    @property
    def starts_from(self) -> tuple[Path, ...]:
        """The workdirs of other runs whose checkpoints it needs."""
        frozen = {f"frozen.{n}": self.config.frozen[n] for n in used_networks(self.config)}
        named = {"init_from": self.config.init_from, **frozen}
        return tuple(dict.fromkeys(expand(run, field) for field, run in named.items() if run))

    @property
    def summary(self) -> dict[str, Any] | None:
        """The contents of summary.json; None while the run is not finished.

        Raises:
            ConfigError: the file is damaged.
            CheckpointError: the file belongs to another run.
        """
        path = self.workdir / "summary.json"
        if not path.is_file():
            return None
        try:
            summary = read_json(path)
            found = summary["config_hash"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} is damaged ({error}); delete it, and the run writes it again"
            ) from None
        if found != config_hash(self.config):
            raise CheckpointError(
                f"{path} belongs to a run with another config; choose another --out"
            )
        return summary


def tasks_of(config: ConfigDict, seed: int, root: Path) -> list[Task]:
    """Lists the runs behind one number, in the order in which they must be done.

    A run with a deferred phase starts from the plain run of the same data, network and optimiser,
    which is trained only once, with DAR-BN, because without noise all norms compute the same. A run
    whose methods only evaluate takes over that run as a whole.

    Args:
        config: config of a cell.
        seed: seed of the run; the subset's seed is not changed.
        root: folder of all runs.
    """
    config = _without_idle_arguments(config)
    config.seed = seed
    starts = sorted(phase.start_epoch for phase in config.phases.values())
    if len(starts) == 1:
        trained = _without_evaluation(config)
        # Of a run that ends early there may be no checkpoint of the last epoch.
        if _is_plain(trained) and (trained == config or not config.eval.patience):
            earlier = _plain(trained)
            earlier.init_epoch = default_config().init_epoch
            plain = Task(earlier, _workdir(earlier, root))
            if trained == config:
                return [plain]
            config.init_from, config.init_epoch = str(plain.workdir), config.num_epochs
            return [plain, Task(config, _workdir(config, root), config.num_epochs)]
        # Of no effect, but it would make the same run of two cells look different.
        config.init_epoch = default_config().init_epoch
        return [Task(config, _workdir(config, root))]
    earlier = tasks_of(_before(config, starts[-1]), seed, root)
    if earlier[-1].first_epoch >= starts[-1]:
        # That run only evaluates, and has no checkpoint but that of its end. It starts from the run
        # before it, which has the one that is needed.
        earlier.pop()
    config.init_from = str(earlier[-1].workdir)
    config.init_epoch = starts[-1]
    workdir = _workdir(config, root)
    for name in used_networks(config):
        if not config.frozen[name]:
            # That of the stage before this one, otherwise the network of that stage itself, trained
            # to the end.
            config.frozen[name] = earlier[-1].config.frozen[name] or config.init_from
    return [*earlier, Task(config, workdir, starts[-1])]


def tasks_of_cell(cell: Cell, seed: int, root: Path) -> list[Task]:
    """Lists the runs behind one number of a cell, in the order in which they must be done.

    Args:
        cell: with a config.
        seed: of the runs.
        root: folder of all runs.

    Raises:
        ValueError: the cell has no config, or begins with another network and has several phases.
    """
    if cell.config is None:
        raise ValueError(f"{cell.setting}, {cell.method}: there is no config")
    tasks = tasks_of(cell.config, seed, root)
    if cell.pretraining is None:
        return tasks
    if len(tasks) > 1:
        raise ValueError(f"{cell.setting}, {cell.method}: pretraining, and several phases")
    earlier, config = tasks_of(cell.pretraining, seed, root), tasks[0].config
    config.init_from, config.init_epoch = str(earlier[-1].workdir), 0
    return [*earlier, Task(config, _workdir(config, root))]


def _without_idle_arguments(config: ConfigDict) -> ConfigDict:
    """A copy in which methods that no phase names have their defaults, and none a network.

    Of no effect, but they would make the same run of two cells look different.
    """
    config, default = config.copy_and_resolve_references(), default_config()
    named = {name for phase in config.phases.values() for name in phase.methods}
    for name in set(config.method) - named:
        config.method[name] = default.method[name]
    for name in set(config.frozen) - used_networks(config).keys():
        config.frozen[name] = default.frozen[name]
    return config


def _without_evaluation(config: ConfigDict) -> ConfigDict:
    """A copy without the methods that only evaluate, and with the default arguments of these."""
    trained, default = config.copy_and_resolve_references(), default_config()
    for phase in trained.phases.values():
        kept = tuple(m for m in phase.methods if not as_method(METHODS[m]).only_evaluates)
        phase.methods = kept or ("erm",)
    for name in set(trained.method):
        if as_method(METHODS[name]).only_evaluates:
            trained.method[name] = default.method[name]
    return trained


def _before(config: ConfigDict, start: int) -> ConfigDict:
    """The run whose state a run has at the start of its last phase.

    It is trained to its own end, because then it is the run of another cell.
    """
    first = config.copy_and_resolve_references()
    for name in [name for name, phase in first.phases.items() if phase.start_epoch == start]:
        # A second stage makes the run longer, and the schedules of the training end where a phase
        # begins with a rate of its own.
        phase = first.phases[name]
        second = any(as_method(METHODS[m]).phase.start >= 1 for m in phase.methods)
        if second or phase.get("learning_rate", 0):
            first.num_epochs = start
            drops = first.optimizer.milestones
            first.optimizer.milestones = tuple(epoch for epoch in drops if epoch < start)
            first.checkpoint.epochs = tuple(e for e in first.checkpoint.epochs if e < start)
        del first.phases[name]
    if first.model.head == "scaled":
        # Its scales are 1 until a second stage trains them, and are added there.
        first.model.head = "linear"
    if _is_plain(first):
        first = _plain(first)
    first.checkpoint.epochs = tuple(sorted({*first.checkpoint.epochs, start} - {first.num_epochs}))
    return first


def tasks_of_table(table: Table, seeds: Iterable[int], root: Path) -> list[Task]:
    """Lists every run of a table once: all cells with the first seed, then with the next."""
    found: dict[Path, Task] = {}
    for seed in seeds:
        for cell in (each for each in table.cells if each.config is not None):
            for task in tasks_of_cell(cell, seed, root):
                other = found.setdefault(task.workdir, task)
                if other.config.to_json() != task.config.to_json():
                    raise ConfigError(f"{task.workdir} would be the workdir of two runs")
    return list(found.values())


def training_pflop(task: Task) -> float:
    """PFLOP of all steps of a run.

    Plain training has for each row three times those of a forward pass; a step of other methods is
    counted in such steps, see `step_cost.passes`. The projector of a network does not count, nor
    does it count that `data.limit` thins the smaller classes of natural data, too.
    """
    config = resolved(task.config)
    classes, images = SIZES.get(config.data.name, (10, 50_000))
    largest = images // classes
    classes = len(config.data.classes) or classes
    if config.data.profile == "natural" and not config.data.class_counts:
        images = largest * classes if config.data.classes else images
        limit = config.data.limit
        images = min(limit * classes, images) if limit else images
    else:
        images = int(cut_counts(config).sum())
    rows = 0.0
    phases = sorted(config.phases.values(), key=lambda phase: phase.start_epoch)
    ends = [*(phase.start_epoch for phase in phases[1:]), config.num_epochs]
    for phase, end in zip(phases, ends, strict=True):
        epochs = max(end - max(phase.start_epoch, task.first_epoch), 0)
        if epochs:
            rows += epochs * images * passes(config, phase.methods)
    return 3e-15 * rows * _image_flops(config.model.name, classes, config.data.image_size or 32)


def cut_counts(config: ConfigDict) -> np.ndarray:
    """Returns the training images of every class, int[K], of a run on a part of equal classes.

    Args:
        config: resolved.
    """
    data = config.data
    classes, images = SIZES.get(data.name, (10, 50_000))
    largest = images // classes
    classes = len(data.classes) or classes
    if data.class_counts:
        return np.array(data.class_counts)
    if data.profile == "natural":
        return np.full(classes, largest)
    counts = long_tail_counts(
        largest, classes, imbalance_ratio=data.imbalance_ratio, profile=data.profile
    )
    if 0 < data.limit < largest:
        return np.maximum(counts * data.limit // largest, 1)
    return counts


@cache
def _image_flops(name: str, classes: int, side: int) -> int:
    model = create_model(name, num_classes=classes)
    image = jnp.zeros((1, side, side, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    return flops_of(lambda v: model.apply(v, image, train=False)[0], variables)


def _is_plain(config: ConfigDict) -> bool:
    return [phase.methods for phase in config.phases.values()] == [("erm",)]


def _plain(config: ConfigDict) -> ConfigDict:
    """Stage one of a run: fields without a part in training without noise get their defaults."""
    plain, default = config.copy_and_resolve_references(), default_config()
    for phase in [name for name, p in plain.phases.items() if p.start_epoch > 0]:
        del plain.phases[phase]
    plain.method = default.method
    plain.model.norm, plain.model.noise_grad = default.model.norm, default.model.noise_grad
    plain.init_from, plain.init_aux_bn = default.init_from, default.init_aux_bn
    return plain


def _workdir(config: ConfigDict, root: Path) -> Path:
    data = config.data
    subset = f"{data.name}_ir{data.imbalance_ratio:g}"
    if data.indices:
        subset = Path(data.indices).stem
    elif data.source in OWN_DATA and data.path:
        # Of these, data.name says nothing.
        subset = expand(data.path, "data.path").resolve().stem
    elif data.class_counts:
        subset = f"{data.name}_n{_listed(data.class_counts)}"
    if data.classes:
        subset += f"_of{_listed(data.classes)}"
    last = max(config.phases.values(), key=lambda phase: phase.start_epoch).methods
    unseeded = config.copy_and_resolve_references()
    unseeded.seed = 0
    # These change a result, but are not in the config hash, because a run may change them later.
    parts = [config_hash(unseeded)]
    if config.eval.train:
        # A finished run of another table has no such records, and would not be trained again.
        parts.append("eval.train")
    if config.eval.test == "never":
        # A search has no test numbers, of which another table is made.
        parts.append("eval.test=never")
    for field in ("indices", "train_list", "val_list", "test_list"):
        if data[field]:
            parts.append(_sha256(expand(data[field], f"data.{field}")))
    if config.model.pretrained:
        parts.append(_sha256(expand(config.model.pretrained, "model.pretrained")))
    if config.init_from and not config.init_epoch:
        # The network of another run; of an earlier phase the config says all.
        parts.append(Path(config.init_from).parent.name)
    for name in used_networks(config):
        # That of an earlier phase is not named yet.
        if config.frozen[name]:
            parts.append(str(expand(config.frozen[name], f"frozen.{name}").resolve()))
    if config.model.norm == "aux_bn":
        parts.append(config.init_aux_bn)
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()
    name = f"{subset}-{config.model.name}-{'+'.join(last)}-{key[:8]}"
    return root / name / f"seed{config.seed}"


def _sha256(file: Path) -> str:
    found = file.stat()
    return _sha256_of(file, found.st_mtime_ns, found.st_size)


@cache
def _sha256_of(file: Path, changed: int, size: int) -> str:
    """Read once for all runs of a table, as long as the file does not change."""
    return hashlib.sha256(read_bytes(file)).hexdigest()


def _listed(numbers: Sequence[int]) -> str:
    """Numbers of classes for the name of a folder: each of a few, the number of many."""
    return "_".join(map(str, numbers)) if len(numbers) <= 4 else f"{len(numbers)}classes"
