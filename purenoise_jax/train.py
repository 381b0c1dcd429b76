"""The training loop, to be read from top to bottom.

It names no method, data set, model or normalisation layer: those come with the `Experiment`.
"""

import time
from collections.abc import Callable
from os.path import expanduser
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from purenoise_jax import report, resume, writer
from purenoise_jax.checkpoint import Checkpoints
from purenoise_jax.clock import Clock
from purenoise_jax.config import validate
from purenoise_jax.console import Display
from purenoise_jax.errors import ConfigError
from purenoise_jax.experiment import Experiment, Phase, build
from purenoise_jax.skipped import SkippedSteps
from purenoise_jax.step import Totals, TrainState, compile_steps

# On an accelerator, steps that the host hands over at once unless the config says otherwise.
STEPS_PER_CALL = 50


def train_and_evaluate(
    config: ConfigDict,
    workdir: str | Path,
    display: Display | None = None,
    at_end: Callable[[Experiment], None] | None = None,
) -> TrainState:
    """Trains, or goes on training, and leaves metrics, checkpoints and summary.json in `workdir`.

    Args:
      config: see `purenoise_jax.config`.
      workdir: of this run alone; made if it is not there.
      display: where progress is shown; None = nowhere.
      at_end: called by the first process, with what was run, once all files are written.

    Returns:
      The state after the last step.

    Raises:
      ConfigError: a field is not legal, or the workdir is that of another run.
      DataError: the data set is missing, damaged or mislabelled.
      CheckpointError: a checkpoint is missing, unreadable or of another run.
      NonFiniteError: several steps in a row had a NaN or an infinity and were skipped.
    """
    started = time.monotonic()
    display = display or Display(active=False)
    workdir = Path(workdir).expanduser()
    validate(config)
    resume.refuse_other_run(config, workdir)
    experiment = build(config)
    placement, steps_per_epoch = experiment.placement, experiment.steps_per_epoch
    class_counts = experiment.training.stats.class_counts
    total_steps = config.num_epochs * steps_per_epoch

    saving = config.checkpoint
    checkpoints = Checkpoints(
        workdir,
        keep=saving.keep,
        named=[epoch * steps_per_epoch for epoch in (*saving.epochs, config.num_epochs)],
    )
    start = resume.find_start(
        experiment,
        checkpoints,
        init_from=expanduser(config.init_from),
        init_epoch=config.init_epoch,
        init_aux_bn=config.init_aux_bn,
    )
    step = first_step = 0 if start.state is None else int(start.state.step)
    if step > total_steps:
        raise ConfigError(
            f"num_epochs={config.num_epochs} ends at step {total_steps}, but {workdir} is already "
            f"at step {step}; legal: at least {-(-step // steps_per_epoch)}"
        )

    device = jax.devices()[0]
    steps_per_call = config.steps_per_call or (1 if device.platform == "cpu" else STEPS_PER_CALL)

    def compile_phase(phase: Phase) -> Callable[..., tuple[TrainState, Totals]]:
        return compile_steps(
            experiment.step_fn(phase),
            placement,
            looped=steps_per_call > 1,
            shapes=experiment.step_shapes(),
        )

    # In the background, while the parameters are drawn and the data placed.
    compiled = {}
    if step < total_steps:
        phase = experiment.phase_of(step // steps_per_epoch)
        compiled = {phase.start: compile_phase(phase)}
    state = experiment.init() if start.state is None else start.state

    log = None
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        writer.write_json(workdir / resume.CONFIG_FILE, resume.saved_config(config))
        log = writer.MetricsWriter(workdir, step)
        # Now, not at the end: the checkout may be another by then.
        versions = writer.versions()
    display.header(report.header_lines(config, workdir, experiment, state))
    if first_step:
        display.note(f"continues at step {step:,}, after epoch {step / steps_per_epoch:g}")

    images = placement.replicate(experiment.training.images)
    labels = placement.replicate(experiment.training.labels)
    evaluators = experiment.evaluators(config.eval.batch_size)
    clock = Clock(config.batch_size, start.measured_steps, start.measured_seconds)
    skipped = SkippedSteps(
        workdir,
        display,
        checkpoints,
        steps_per_epoch,
        step=step,
        count=start.skipped_steps,
        in_a_row=start.skipped_in_a_row,
        writes=log is not None,
    )
    evaluated: dict[str, dict[str, Any]] = {}

    def save() -> None:
        record = {
            **experiment.identity,
            "epoch": step / steps_per_epoch,
            "steps_per_epoch": steps_per_epoch,
            "seconds": start.seconds + time.monotonic() - started,
            "measured_steps": clock.steps,
            "measured_seconds": clock.seconds,
            "skipped_steps": skipped.count,
            "skipped_in_a_row": skipped.in_a_row(step),
            "init_from": start.init_from,
        }
        checkpoints.save(state, record)

    display.start_progress(total_steps, step)
    try:
        running = None
        for epoch in range(step // steps_per_epoch, config.num_epochs):
            phase = experiment.phase_of(epoch)
            if phase.start not in compiled:
                compiled = {phase.start: compile_phase(phase)}
            if running == phase.start:
                clock.start()
            running, run_steps = phase.start, compiled[phase.start]
            index, valid = experiment.sampler.epoch(epoch, phase.recipe.class_probs)
            rows = placement.split_rows(index), placement.split_rows(valid)
            totals = jax.tree.map(placement.replicate, Totals.zero(steps_per_epoch))
            count = 0
            while step < (epoch + 1) * steps_per_epoch:
                row = step - epoch * steps_per_epoch
                waiting, count = count, min(steps_per_call, steps_per_epoch - row)
                if saving.every_steps:
                    count = min(count, saving.every_steps - step % saving.every_steps)
                before = totals
                state, totals = run_steps(state, totals, images, labels, *rows, row, count)
                step += count
                # One call behind, so that the device always has the next one waiting.
                skipped.check(before, epoch, index, valid)
                # Compilation ends when its first call is handed over; then the clock starts.
                clock.tick(waiting)
                display.estimate_once(
                    clock.seconds_per_step, total_steps - step, device.device_kind
                )
                where = f"epoch {epoch + 1}/{config.num_epochs}"
                display.advance(step, where, clock.images_per_second)
                if due(step, saving.every_steps) and step % steps_per_epoch:
                    skipped.check(totals, epoch, index, valid)
                    save()
            skipped.check(totals, epoch, index, valid)
            clock.tick(count)
            clock.stop()
            done = epoch + 1
            last = done == config.num_epochs
            now = last or due(done, config.eval.every_epochs)
            evaluated = {}
            if now or experiment.phase_of(done) is not phase:
                evaluated = report.evaluate_all(evaluators, state, phase, class_counts)
            rate = float(experiment.rates[epoch])
            record = report.epoch_record(totals, phase, done, rate, clock, evaluated)
            if evaluated:
                display.evaluated(
                    done, config.num_epochs, record.get("train/loss"), evaluated["test"]
                )
            if log is not None:
                log.write(step, record)
            rolling = due(done, saving.every_epochs) or due(step, saving.every_steps)
            if last or done in saving.epochs or rolling:
                save()
    finally:
        display.stop_progress()
        checkpoints.close()
        if log is not None:
            log.close()

    if not evaluated:
        last_phase = experiment.phase_of(config.num_epochs - 1)
        evaluated = report.evaluate_all(evaluators, state, last_phase, class_counts)
    if log is not None:
        seconds = start.seconds + time.monotonic() - started
        summary = {
            **report.make_summary(config, experiment, state, evaluated),
            "init_from": start.init_from,
            "skipped_steps": skipped.count,
            "images_per_second": clock.images_per_second,
            "seconds": seconds,
            "versions": versions,
        }
        writer.write_json(workdir / "summary.json", summary)
    title = f"{workdir}, epoch {config.num_epochs}"
    display.table(title, evaluated["test"], experiment.dataset.class_names)
    if log is not None and at_end is not None:
        at_end(experiment)
    return state


def due(count: int, every: int) -> bool:
    """Whether something that happens every so many times happens after `count` of them."""
    return every > 0 and count % every == 0
