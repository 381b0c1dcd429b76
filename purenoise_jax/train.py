"""The training loop, to be read from top to bottom.

It names no method, data set, model or normalisation layer: those come as a `Recipe`, a `Dataset`
and a model from the config.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from purenoise_jax import metrics, writer
from purenoise_jax.checkpoint import Checkpoints, check_same
from purenoise_jax.config import config_hash, fixed_fields, validate
from purenoise_jax.console import Display, class_counts_line, groups_of_steps, parameter_count
from purenoise_jax.data import sources
from purenoise_jax.data.augment import make_augment
from purenoise_jax.data.dataset import Dataset
from purenoise_jax.data.pipeline import Placement, TrainingSet, make_training_set
from purenoise_jax.data.sampling import EpochSampler
from purenoise_jax.errors import CheckpointError, ConfigError, NonFiniteError
from purenoise_jax.evaluate import Evaluator
from purenoise_jax.methods import build_recipe
from purenoise_jax.models import create_model
from purenoise_jax.optimizer import make_optimizer
from purenoise_jax.recipe import Recipe
from purenoise_jax.schedules import by_step, learning_rates
from purenoise_jax.step import (
    Loader,
    Totals,
    TrainState,
    compile_steps,
    init_state,
    make_step,
)

# On an accelerator, steps that the host hands over at once unless the config says otherwise.
STEPS_PER_CALL = 50


@dataclasses.dataclass(frozen=True)
class Phase:
    """From `start` (an epoch) on, steps follow `recipe`, made of `methods`."""

    start: int
    methods: tuple[str, ...]
    recipe: Recipe


def train_and_evaluate(
    config: ConfigDict, workdir: str | Path, display: Display | None = None
) -> TrainState:
    """Trains, or goes on training, and leaves metrics, checkpoints and summary.json in `workdir`.

    Args:
      config: see `purenoise_jax.config`.
      workdir: of this run alone; made if it is not there.
      display: where progress is shown; None = nowhere.

    Returns:
      The state after the last step.

    Raises:
      ConfigError: a field is not legal, or the workdir is that of another run.
      DataError: the data set is missing, damaged or mislabelled.
      CheckpointError: a checkpoint is missing, unreadable or of another run.
      NonFiniteError: the loss or a gradient is NaN or infinite.
    """
    started = time.monotonic()
    display = display or Display(active=False)
    workdir = Path(workdir)
    validate(config)
    refuse_other_run(config, workdir)
    placement = Placement(config.batch_size, config.num_devices)

    dataset = sources.load(
        config.data.source,
        name=config.data.name,
        path=config.data.path,
        image_size=config.data.image_size,
    )
    training = load_training_set(config, dataset)
    stats = training.stats
    phases = make_phases(config, training)
    sampler = EpochSampler(training.labels, stats.num_classes, config.batch_size, config.seed)
    total_steps = config.num_epochs * sampler.steps

    model = create_model(
        config.model.name,
        num_classes=stats.num_classes,
        norm=config.model.norm,
        noise_grad=config.model.noise_grad,
        dtype=config.dtype,
    )
    opt = config.optimizer
    tx = make_optimizer(opt.name, momentum=opt.momentum, weight_decay=opt.weight_decay)
    rates = learning_rates(
        config.num_epochs,
        learning_rate=opt.learning_rate,
        warmup_epochs=opt.warmup_epochs,
        milestones=opt.milestones,
        gamma=opt.gamma,
    )
    loader = Loader(
        augment=make_augment(
            config.data.augment,
            crop_padding=config.data.crop_padding,
            cutout_size=config.data.cutout_size,
        ),
        mean=stats.normalize_mean,
        std=stats.normalize_std,
        num_classes=stats.num_classes,
    )

    # Which run a checkpoint is of; compared before one is used.
    identity = {
        "model": config.model.name,
        "image_shape": stats.image_shape,
        "num_classes": stats.num_classes,
        "class_counts": stats.class_counts.tolist(),
        "dataset_fingerprint": training.fingerprint,
        "dataset_content": training.content,
    }
    checkpoints = Checkpoints(
        workdir,
        keep=config.checkpoint.keep,
        named=[epoch * sampler.steps for epoch in (*config.checkpoint.epochs, config.num_epochs)],
    )
    make = jax.jit(
        lambda: init_state(model, tx, stats.image_shape, config.seed),
        out_shardings=placement.replicated,
    )
    state, seconds_before = restore_or_init(
        make, checkpoints, identity, sampler.steps, config.init_from, config.init_epoch, placement
    )
    step = first_step = int(state.step)
    if step > total_steps:
        raise ConfigError(
            f"num_epochs={config.num_epochs} ends at step {total_steps}, but {workdir} is already "
            f"at step {step}; legal: at least {-(-step // sampler.steps)}"
        )

    is_writer = jax.process_index() == 0
    log = None
    if is_writer:
        workdir.mkdir(parents=True, exist_ok=True)
        writer.write_json(workdir / "config.json", saved_config(config))
        log = writer.MetricsWriter(workdir, step)
    display.header(
        header_lines(config, workdir, dataset, training, phases, state, sampler.steps, placement)
    )
    if first_step:
        display.note(f"continues at step {first_step:,} (epoch {first_step // sampler.steps})")

    images, labels = placement.replicate(training.images), placement.replicate(training.labels)
    evaluators = {
        split: Evaluator(
            model,
            split_images,
            split_labels,
            loader=loader,
            postprocess=phases[-1].recipe.postprocess,
            placement=placement,
            batch_size=config.eval.batch_size,
        )
        for split, split_images, split_labels in (
            ("test", dataset.test_images, dataset.test_labels),
            ("val", dataset.val_images, dataset.val_labels),
        )
        if split_images is not None and split_labels is not None
    }
    on_cpu = jax.devices()[0].platform == "cpu"
    steps_per_call = config.steps_per_call or (1 if on_cpu else STEPS_PER_CALL)
    clock = Clock(config.batch_size)
    evaluated: dict[str, Any] = {}
    phase, run_steps = None, None

    def save() -> None:
        record = {
            **identity,
            "epoch": step / sampler.steps,
            "steps_per_epoch": sampler.steps,
            "seconds": seconds_before + time.monotonic() - started,
        }
        checkpoints.save(state, record)

    def stop_if_bad(totals: Totals) -> None:
        bad = int(totals.first_bad)
        if bad >= 0:
            raise NonFiniteError(
                f"the loss or a gradient is not finite at step {bad} (epoch {bad // sampler.steps})"
                f"; last good checkpoint: {(checkpoints.steps() or ['none'])[-1]} in "
                f"{checkpoints.folder}"
            )

    display.start_progress(total_steps, step)
    try:
        for epoch in range(step // sampler.steps, config.num_epochs):
            if phase is None or phase_of(phases, epoch) is not phase:
                phase = phase_of(phases, epoch)
                lr_fn = by_step(rates, sampler.steps)
                step_fn = make_step(model, tx, lr_fn, phase.recipe, loader, config.seed)
                run_steps = compile_steps(step_fn, placement, looped=steps_per_call > 1)
                clock.pause()
            index, valid = map(
                placement.split_rows, sampler.epoch(epoch, phase.recipe.class_probs)
            )
            totals = Totals(*map(placement.replicate, Totals.zero()))
            while step < (epoch + 1) * sampler.steps:
                row = step - epoch * sampler.steps
                count = min(steps_per_call, sampler.steps - row)
                every = config.checkpoint.every_steps
                if every:
                    count = min(count, every - step % every)
                before = totals
                state, totals = run_steps(state, totals, images, labels, index, valid, row, count)
                step += count
                # One call behind, so that the device always has the next one waiting.
                stop_if_bad(before)
                clock.tick(count)
                if clock.just_known:
                    display.estimate(
                        clock.seconds_per_step, total_steps - step, jax.devices()[0].device_kind
                    )
                display.advance(
                    step, f"epoch {epoch + 1}/{config.num_epochs}", clock.images_per_second
                )
                if every and step % every == 0 and step % sampler.steps:
                    stop_if_bad(totals)
                    save()
            stop_if_bad(totals)
            done = epoch + 1
            last = done == config.num_epochs
            record = train_record(totals, phase, done, float(rates[epoch]), clock)
            if last or due(done, config.eval.every_epochs) or phase_of(phases, done) is not phase:
                evaluated = evaluate_all(evaluators, state, stats.class_counts)
                record |= {
                    f"{split}/{name}": value
                    for split, numbers in evaluated.items()
                    for name, value in numbers.items()
                }
                display.evaluated(done, config.num_epochs, record["train/loss"], evaluated["test"])
            if log is not None:
                log.write(step, record)
            named = done in config.checkpoint.epochs
            if last or named or due(done, config.checkpoint.every_epochs):
                save()
            clock.pause()
    finally:
        display.stop_progress()
        checkpoints.close()
        if log is not None:
            log.close()

    if not evaluated or step == first_step:
        evaluated = evaluate_all(evaluators, state, stats.class_counts)
    seconds = seconds_before + time.monotonic() - started
    if is_writer:
        summary = {
            **summary_of(evaluated),
            **identity,
            "class_names": dataset.class_names,
            "epochs": config.num_epochs,
            "steps": step,
            "seed": config.seed,
            "config_hash": config_hash(config),
            "init_from": config.init_from or None,
            "images_per_second": clock.images_per_second,
            "seconds": seconds,
            "state_digest": writer.state_digest(jax.device_get(state)),
            "devices": placement.mesh.size,
            "versions": writer.versions(),
        }
        writer.write_json(workdir / "summary.json", summary)
    display.table(f"{workdir}, epoch {config.num_epochs}", evaluated["test"], dataset.class_names)
    return state


class Clock:
    """Measures the rate of steps, leaving out compilation and whatever is between epochs."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._since: float | None = None
        self._calls = 0
        self._steps = 0
        self._seconds = 0.0
        self.just_known = False

    def pause(self) -> None:
        """The next call's time does not count: it compiles, or follows something else."""
        self._since = None

    def tick(self, steps: int) -> None:
        """A call of so many steps was handed over, and the call before it is done."""
        now = time.monotonic()
        if self._since is not None:
            self._seconds += now - self._since
            self._steps += steps
            self._calls += 1
        self._since = now
        # The first call that counts may still hold compilation of the one before it.
        self.just_known = self._calls == 3

    @property
    def seconds_per_step(self) -> float:
        """0 before anything is known."""
        return self._seconds / max(self._steps, 1)

    @property
    def images_per_second(self) -> float | None:
        """Rows of training steps per second, None before anything is known."""
        return self._batch_size / self.seconds_per_step if self._steps else None


def refuse_other_run(config: ConfigDict, workdir: Path) -> None:
    """Raises ConfigError if the workdir holds a run whose fixed fields differ."""
    path = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"workdir={workdir} is a file; legal: a folder, or a path to make one at")
    if not path.exists():
        if Checkpoints(workdir).folder.is_dir():
            raise ConfigError(f"workdir={workdir} has checkpoints but no config.json to check them by")
        return
    there, here = writer.read_json(path), fixed_fields(config)
    differing = [
        f"{name}: {there['fixed'].get(name)!r} there, {here.get(name)!r} here"
        for name in sorted({*there["fixed"], *here})
        if there["fixed"].get(name) != here.get(name)
    ]
    if differing:
        raise ConfigError(
            f"workdir={workdir} is of another run; {'; '.join(differing[:4])}; "
            "choose another workdir, or the same config"
        )


def saved_config(config: ConfigDict) -> dict[str, Any]:
    """What config.json holds: all fields, and apart those that must stay the same."""
    return {
        "hash": config_hash(config),
        "fixed": fixed_fields(config),
        "config": config.to_dict(),
    }


def load_training_set(config: ConfigDict, dataset: Dataset) -> TrainingSet:
    """The long-tailed training set that the config asks for."""
    data = config.data
    return make_training_set(
        dataset,
        imbalance_ratio=data.imbalance_ratio,
        profile=data.profile,
        rule=data.rule,
        seed=data.seed,
        indices=data.indices,
        normalize=data.normalize,
        normalize_mean=data.normalize_mean,
        normalize_std=data.normalize_std,
    )


def make_phases(config: ConfigDict, training: TrainingSet) -> list[Phase]:
    """The phases by start, each with the recipe that its methods make."""
    arguments = config.method.to_dict()
    return [
        Phase(phase.start_epoch, phase.methods, recipe)
        for phase in sorted(config.phases.values(), key=lambda phase: phase.start_epoch)
        for recipe in [build_recipe(phase.methods, training.stats, arguments)]
    ]


def phase_of(phases: list[Phase], epoch: int) -> Phase:
    """The phase that an epoch, counted from 0, belongs to."""
    return [phase for phase in phases if phase.start <= epoch][-1]


def due(done: int, every: int) -> bool:
    """Whether something that happens every so many epochs happens after `done` of them."""
    return every > 0 and done % every == 0


def restore_or_init(
    make: Callable[[], TrainState],
    checkpoints: Checkpoints,
    identity: Mapping[str, Any],
    steps_per_epoch: int,
    init_from: str,
    init_epoch: int,
    placement: Placement,
) -> tuple[TrainState, float]:
    """The state to start from, and the seconds already spent on it.

    In this order: the newest checkpoint of this run; the checkpoint of `init_from` after
    `init_epoch` epochs, momentum included; random parameters.

    Raises:
      CheckpointError: a checkpoint is missing, unreadable or of another run.
    """
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement.replicated),
        jax.eval_shape(make),
    )
    own = checkpoints.steps()
    if own:
        record = checkpoints.record(own[-1])
        here = {**identity, "steps_per_epoch": steps_per_epoch}
        check_same(record, here, str(checkpoints.folder / str(own[-1])))
        return checkpoints.restore(own[-1], target), record["seconds"]
    if not init_from:
        return make(), 0.0
    source = Checkpoints(init_from, read_only=True)
    records = {step: source.record(step) for step in source.steps()}
    found = [step for step, record in records.items() if record["epoch"] == init_epoch]
    if not found:
        epochs = sorted(f"{record['epoch']:g}" for record in records.values())
        raise CheckpointError(
            f"init_from={init_from}: no checkpoint after epoch {init_epoch} (init_epoch); there are "
            f"{', '.join(epochs) or 'none'}"
        )
    check_same(records[found[0]], identity, f"init_from={init_from}")
    state = source.restore(found[0], target)
    source.close()
    # Counted in this run's steps: the other may have had another batch size.
    step = placement.replicate(np.asarray(init_epoch * steps_per_epoch, np.int32))
    return state.replace(step=step), 0.0


def evaluate_all(
    evaluators: Mapping[str, Evaluator], state: TrainState, class_counts: np.ndarray
) -> dict[str, dict[str, Any]]:
    """All numbers of every split; a number that does not exist is left out."""
    evaluated = {}
    for split, evaluator in evaluators.items():
        counts = evaluator(state)
        numbers = metrics.summarize(counts.confusion, counts.nll, counts.bins, class_counts)
        numbers["confusion_matrix"] = counts.confusion.tolist()
        evaluated[split] = {k: v for k, v in numbers.items() if v is not None}
    return evaluated


def train_record(
    totals: Totals, phase: Phase, done: int, learning_rate: float, clock: Clock
) -> dict[str, Any]:
    """What metrics.jsonl says of the training steps of an epoch."""
    sums = jax.device_get(totals)
    rows = int(sums.natural + sums.noise)
    return {
        "epoch": done,
        "train/loss": float(sums.loss / sums.steps),
        "train/accuracy": float(sums.correct / max(int(sums.natural), 1)),
        "train/noise_fraction": int(sums.noise) / rows,
        "train/learning_rate": learning_rate,
        "train/steps": int(sums.steps),
        "train/methods": list(phase.methods),
        "train/images_per_second": clock.images_per_second,
    }


def summary_of(evaluated: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The names under which summary.json holds the numbers of the last evaluation."""
    test = dict(evaluated["test"])
    summary: dict[str, Any] = {
        "test_accuracy": test.pop("accuracy"),
        "test_nll": test.pop("nll"),
        "test_ece": test.pop("ece"),
        **test,
    }
    if "val" in evaluated:
        summary |= {f"val_{name}": evaluated["val"][name] for name in ("accuracy", "nll", "ece")}
    return summary


def header_lines(
    config: ConfigDict,
    workdir: Path,
    dataset: Dataset,
    training: TrainingSet,
    phases: list[Phase],
    state: TrainState,
    steps_per_epoch: int,
    placement: Placement,
) -> dict[str, str]:
    """What the header says."""
    device = jax.devices()[0]
    model = f"{config.model.name}, {config.model.norm}"
    if config.model.norm == "dar_bn":
        model += f" ({config.model.noise_grad})"
    names = [phase.methods for phase in phases]
    return {
        "workdir": str(workdir),
        "devices": f"{placement.mesh.size} x {device.platform} ({device.device_kind})",
        "model": f"{model}, {parameter_count(state.params):,} parameters, {config.dtype}",
        "data": f"{dataset.name}, {class_counts_line(training.stats.class_counts.tolist())}",
        "fingerprint": training.fingerprint,
        "phases": groups_of_steps([phase.start for phase in phases], names, steps_per_epoch),
        "length": f"{config.num_epochs} epochs of {steps_per_epoch:,} steps, "
        f"{config.num_epochs * steps_per_epoch:,} in all, {config.batch_size} images a step",
    }
