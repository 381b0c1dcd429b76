"""The training loop, to be read from top to bottom.

It names no method, data set, model or normalisation layer: those come with the `Experiment`.
"""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.runtime import files, multihost
from purenoise_jax.runtime.console import Display
from purenoise_jax.runtime.numerics import numeric_settings
from purenoise_jax.runtime.paths import workdir_path
from purenoise_jax.runtime.preemption import PreemptionHandler
from purenoise_jax.training import metric_writer, records, resume
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.compile_steps import CompiledSteps, compile_steps
from purenoise_jax.training.experiment import Experiment, Phase
from purenoise_jax.training.nonfinite_steps import NonFiniteSteps
from purenoise_jax.training.setup import set_up
from purenoise_jax.training.throughput import StepTimer
from purenoise_jax.training.train_step import Rows, TrainState

# On an accelerator, steps that the host hands over at once unless the config says otherwise: so
# many, but not more than take a second, as a signal waits for two calls. Several processes hand
# over the same number, whatever their clocks say.
STEPS_PER_CALL, SECONDS_PER_CALL, STEPS_PER_CALL_TOGETHER = 50, 1.0, 10


def train_and_evaluate(
    config: ConfigDict,
    workdir: str | Path,
    display: Display | None = None,
    at_end: Callable[[Experiment], None] | None = None,
) -> TrainState:
    """Trains, or goes on training, and leaves metrics, checkpoints and summary.json in `workdir`.

    On SIGTERM, SIGUSR1 or SIGINT it saves after the step it is at, and stops; called from a thread
    other than the main one, it does not listen.

    Args:
      config: see `purenoise_jax.config.fields`.
      workdir: of this run alone; made if it is not there.
      display: where progress is shown; None = nowhere.
      at_end: called by the first process, with what was run, once all files are written.

    Returns:
      The state after the last step.

    Raises:
      ConfigError: a field or the workdir's path is not legal.
      DataError: the data set is missing, damaged or mislabelled.
      CheckpointError: no checkpoint can be used although there are some, or the workdir or the
        checkpoint is of another run.
      StorageError: the workdir cannot be written to, or lacks the room.
      NonFiniteError: several steps in a row had a NaN or an infinity and were skipped.
      InUseError: another run is at work in the workdir.
      Stopped: a signal came; what was computed is saved.
    """
    display, workdir = display or Display(active=False), workdir_path(workdir)
    again = partial(resume_hint, config, workdir)
    with PreemptionHandler(again) as stop, contextlib.ExitStack() as held:
        return _train(config, workdir, display, at_end, stop, held)


def resume_hint(config: ConfigDict, workdir: Path, where: str = "") -> str:
    """How a run that ended early is continued, in words, by what is saved of it now.

    Args:
      config: of the run.
      workdir: likewise.
      where: it continues, in words, such as " at the last checkpoint".
    """
    if not config.get("fresh") or resume.job():
        return f"the same command continues{where}"
    if Checkpoints(workdir).steps():
        return f"without --config.fresh=True the same command continues{where}"
    # Nor is there anything to continue without it: what there was is set aside.
    return "the same command starts again"


def _train(
    config: ConfigDict,
    workdir: Path,
    display: Display,
    at_end: Callable[[Experiment], None] | None,
    stop: PreemptionHandler,
    held: contextlib.ExitStack,
) -> TrainState:
    started = time.monotonic()
    first_process = jax.process_index() == 0
    display.doing("reading the data")
    beginning = set_up(config, workdir, held, stop)
    config, experiment = beginning.config, beginning.experiment
    checkpoints, start = beginning.checkpoints, beginning.start
    placement, steps_per_epoch = experiment.placement, experiment.steps_per_epoch
    class_counts = experiment.training.stats.class_counts
    total_steps = config.num_epochs * steps_per_epoch
    step = first_step = beginning.step

    device = jax.devices()[0]
    most = STEPS_PER_CALL if jax.process_count() == 1 else STEPS_PER_CALL_TOGETHER
    steps_per_call = config.steps_per_call or (1 if device.platform == "cpu" else most)

    def compile_phase(phase: Phase) -> CompiledSteps:
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
    state = stop.waiting(experiment.init) if start.state is None else start.state

    log = None
    if first_process:
        named = resume.kept_epochs(config, workdir)
        files.write_json(workdir / resume.CONFIG_FILE, resume.saved_config(config, named))
        # The record of an epoch whose end is still to come is written then.
        log = metric_writer.MetricsWriter(workdir, step - (not start.epoch_ended), display.warn)
        held.callback(log.close)
    display.header(records.header_lines(config, workdir, experiment, state))
    for line in beginning.told():
        display.note(line)

    inputs = jax.tree.map(placement.replicate, experiment.inputs())
    evaluators = experiment.evaluators(config.eval.batch_size)
    clock = StepTimer(config.batch_size, start.measured_steps, start.measured_seconds)
    skipped = NonFiniteSteps(
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
    epoch_ended, totals = start.epoch_ended, EpochMetrics.zero(steps_per_epoch)
    if start.totals is not None:
        totals = totals.from_json(start.totals)
    look_for_skipped: Callable[[EpochMetrics], None] | None = None

    def save() -> None:
        if look_for_skipped is not None:
            look_for_skipped(totals)
        display.doing("saving")
        record = {
            **experiment.identity,
            "epoch": step / steps_per_epoch,
            "epoch_ended": epoch_ended,
            "totals": totals.to_json(),
            "steps_per_epoch": steps_per_epoch,
            "environment": beginning.environment,
            "seconds": start.seconds + time.monotonic() - started,
            "measured_steps": clock.steps,
            "measured_seconds": clock.seconds,
            "skipped_steps": skipped.count,
            "skipped_in_a_row": skipped.in_a_row(step),
            "init_from": start.init_from,
        }
        checkpoints.save(state, record)

    stop_wanted = multihost.AnyProcess()

    def stop_if_asked() -> None:
        """At a step boundary: all processes leave at the same one."""
        checkpoints.check()
        if stop_wanted(stop.requested):
            if step > first_step:
                save()
            checkpoints.wait()
            where = f"step {step:,} of {total_steps:,}"
            saved = step > first_step or checkpoints.steps()
            raise stop.stopped(f"saved at {where}" if saved else "before the first step")

    display.start_progress(total_steps, step)
    held.callback(checkpoints.close)
    held.callback(display.stop_progress)
    running = None
    for epoch in range((step - (not start.epoch_ended)) // steps_per_epoch, config.num_epochs):
        phase = experiment.phase_of(epoch)
        if phase.start not in compiled:
            compiled = {phase.start: compile_phase(phase)}
        run_steps = compiled[phase.start]
        if jax.process_count() == 1:
            display.doing("compiling")
            run_steps.wait(stop_if_asked)
        if running == phase.start:
            clock.start()
        running = phase.start
        index, valid = experiment.sampler.epoch(epoch, phase.recipe.class_probs)
        rows = Rows(placement.split_rows(index), placement.split_rows(valid))
        look_for_skipped = partial(skipped.check, epoch=epoch, index=index, valid=valid)
        if step == epoch * steps_per_epoch:
            if epoch == phase.start:
                state = experiment.enter(phase, state)
            totals = EpochMetrics.zero(steps_per_epoch)
        totals = jax.tree.map(placement.replicate, totals)
        count = 0
        where = f"epoch {epoch + 1}/{config.num_epochs}"
        while step < (epoch + 1) * steps_per_epoch:
            stop_if_asked()
            display.doing(where)
            row = step - epoch * steps_per_epoch
            before, ticked = totals, count
            count = min(steps_per_call, steps_per_epoch - row)
            if not config.steps_per_call and jax.process_count() == 1:
                count = min(count, clock.steps_within(SECONDS_PER_CALL))
            if config.checkpoint.every_steps:
                count = min(
                    count, config.checkpoint.every_steps - step % config.checkpoint.every_steps
                )
            state, totals = run_steps(state, totals, inputs, rows, row, count)
            step, epoch_ended = step + count, False
            # One call behind, so that the device always has the next one waiting.
            look_for_skipped(before)
            # Compilation ends when its first call is handed over; then the clock starts.
            clock.tick(ticked)
            display.estimate_once(clock.seconds_per_step, total_steps - step, device.device_kind)
            display.advance(step, clock.images_per_second)
            if due(step, config.checkpoint.every_steps) and step % steps_per_epoch:
                save()
        look_for_skipped(totals)
        clock.tick(count)
        clock.stop()
        stop_if_asked()
        done = epoch + 1
        last = done == config.num_epochs
        now = last or due(done, config.eval.every_epochs)
        evaluated = {}
        if now or experiment.phase_of(done) is not phase:
            evaluate = partial(records.evaluate_all, evaluators, state, phase, class_counts)
            display.doing("evaluating")
            evaluated = stop.waiting(evaluate, stop_if_asked)
        rate = float(experiment.rates[epoch])
        record = records.epoch_record(totals, phase, done, rate, clock, evaluated)
        if evaluated:
            display.evaluated(done, config.num_epochs, record.get("train/loss"), evaluated["test"])
        if log is not None:
            log.write(step, record)
        epoch_ended = True
        rolling = due(done, config.checkpoint.every_epochs) or due(
            step, config.checkpoint.every_steps
        )
        if last or done in config.checkpoint.epochs or rolling:
            save()
    checkpoints.wait()
    stop.poll()
    display.stop_progress()

    if not evaluated:
        last_phase = experiment.phase_of(config.num_epochs - 1)
        evaluate = partial(records.evaluate_all, evaluators, state, last_phase, class_counts)
        evaluated = stop.waiting(evaluate)
    if first_process:
        seconds = start.seconds + time.monotonic() - started
        summary = {
            **records.make_summary(config, experiment, state, evaluated),
            "init_from": start.init_from,
            "skipped_steps": skipped.count,
            "images_per_second": clock.images_per_second,
            "seconds": seconds,
            "versions": beginning.versions,
            "settings": numeric_settings(),
        }
        files.write_json(workdir / "summary.json", summary)
    title = f"{workdir}, epoch {config.num_epochs}"
    display.table(title, evaluated["test"], experiment.dataset.class_names)
    if first_process and at_end is not None:
        stop.waiting(partial(at_end, experiment))
    return state


def due(count: int, every: int) -> bool:
    """Whether something that happens every so many times happens after `count` of them."""
    return every > 0 and count % every == 0
