"""The training loop, to be read from top to bottom.

It names no method, data set, model or normalisation layer: those come with the `Experiment`.
"""

import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from os.path import expanduser
from pathlib import Path
from typing import Any, TypeVar

import jax
from ml_collections import ConfigDict

from purenoise_jax import processes, report, resume, storage, writer
from purenoise_jax.background import Background
from purenoise_jax.checkpoint import Checkpoints
from purenoise_jax.clock import Clock
from purenoise_jax.config import fixed_fields, validate
from purenoise_jax.console import Display
from purenoise_jax.errors import ConfigError, NonFiniteError
from purenoise_jax.experiment import Experiment, Phase, build
from purenoise_jax.lock import WorkdirLock
from purenoise_jax.step import CompiledSteps, Totals, TrainState, compile_steps
from purenoise_jax.stop import StopRequest

# On an accelerator, steps that the host hands over at once unless the config says otherwise: so
# many, but not more than take a second, as a signal waits for two calls.
STEPS_PER_CALL, SECONDS_PER_CALL = 50, 1.0

T = TypeVar("T")


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
      config: see `purenoise_jax.config`.
      workdir: of this run alone; made if it is not there.
      display: where progress is shown; None = nowhere.
      at_end: called by the first process, with what was run, once all files are written.

    Returns:
      The state after the last step.

    Raises:
      ConfigError: a field is not legal, or the workdir is that of another run.
      DataError: the data set is missing, damaged or mislabelled.
      CheckpointError: no checkpoint can be used although there are some, or it is of another run.
      StorageError: the workdir cannot be written to, or lacks the room.
      NonFiniteError: the loss or a gradient is NaN or infinite.
      InUseError: another run is at work in the workdir.
      Stopped: a signal came; what was computed is saved.
    """
    display = display or Display(active=False)
    with StopRequest() as stop, contextlib.ExitStack() as held:
        if jax.process_count() > 1:
            # One process that leaves at once would leave the others waiting for it.
            held.enter_context(stop.deferred())
        return _train(config, Path(workdir).expanduser(), display, at_end, stop, held)


def _train(
    config: ConfigDict,
    workdir: Path,
    display: Display,
    at_end: Callable[[Experiment], None] | None,
    stop: StopRequest,
    held: contextlib.ExitStack,
) -> TrainState:
    started = time.monotonic()
    first_process = jax.process_index() == 0
    validate(config)
    resume.refuse_other_run(config, workdir)
    display.doing("reading the data")
    experiment = processes.together(lambda: build(config))
    placement, steps_per_epoch = experiment.placement, experiment.steps_per_epoch
    class_counts = experiment.training.stats.class_counts
    total_steps = config.num_epochs * steps_per_epoch
    environment = {**writer.versions(), "devices": placement.mesh.size}

    processes.agree(
        {
            "config": {**fixed_fields(config), "num_epochs": config.num_epochs},
            "data": experiment.identity,
            "environment": environment,
        }
    )

    saving = config.checkpoint
    checkpoints = Checkpoints(
        workdir,
        keep=saving.keep,
        named=[epoch * steps_per_epoch for epoch in (*saving.epochs, config.num_epochs)],
    )

    def take_workdir() -> None:
        if first_process:
            storage.probe(workdir)
            held.enter_context(WorkdirLock(workdir))
            held.callback(resume.remove_if_unused, workdir)
            # Again: whoever held it may have begun another run in the meantime.
            resume.refuse_other_run(config, workdir)
            checkpoints.prepare()

    processes.together(take_workdir)
    processes.agree_on_folder(workdir)
    # Before anything is read together, where one that reads something else would be waited for.
    processes.agree({"checkpoints": checkpoints.steps()})
    fresh = config.fresh and not int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    read_start = processes.together(
        lambda: resume.find_start(
            experiment,
            checkpoints,
            init_from=expanduser(config.init_from),
            init_epoch=config.init_epoch,
            init_aux_bn=config.init_aux_bn,
            fresh=fresh,
        )
    )
    start = processes.together(read_start)
    step = first_step = 0 if start.state is None else int(start.state.step)
    if step > total_steps:
        raise ConfigError(
            f"num_epochs={config.num_epochs} ends at step {total_steps}, but {workdir} is already "
            f"at step {step}; legal: at least {-(-step // steps_per_epoch)}"
        )
    processes.agree({"step": step})

    def make_room() -> None:
        if first_process:
            resume.set_aside(checkpoints, workdir, fresh)
            count = checkpoints.still_to_come(step, total_steps)
            storage.check_space(workdir, experiment.state_bytes(), count)

    processes.together(make_room)

    device = jax.devices()[0]
    steps_per_call = config.steps_per_call or (1 if device.platform == "cpu" else STEPS_PER_CALL)

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
    state = Background(experiment.init).result() if start.state is None else start.state

    log = None
    if first_process:
        writer.write_json(workdir / resume.CONFIG_FILE, resume.saved_config(config))
        # The record of an epoch whose end is still to come is written then.
        log = writer.MetricsWriter(workdir, step - (not start.epoch_ended), display.warn)
        held.callback(log.close)
    display.header(report.header_lines(config, workdir, experiment, state))
    for line in resume.told_at_start(start, checkpoints, environment, steps_per_epoch, fresh):
        display.note(line)

    images = placement.replicate(experiment.training.images)
    labels = placement.replicate(experiment.training.labels)
    evaluators = experiment.evaluators(config.eval.batch_size)
    clock = Clock(config.batch_size, start.measured_steps, start.measured_seconds)
    evaluated: dict[str, dict[str, Any]] = {}
    totals = Totals.zero()
    if start.totals is not None:
        totals = totals.from_json(start.totals)

    def save(*, epoch_ended: bool) -> None:
        display.doing("saving")
        record = {
            **experiment.identity,
            "epoch": step / steps_per_epoch,
            "epoch_ended": epoch_ended,
            "totals": totals.to_json(),
            "steps_per_epoch": steps_per_epoch,
            "environment": environment,
            "seconds": start.seconds + time.monotonic() - started,
            "measured_steps": clock.steps,
            "measured_seconds": clock.seconds,
            "init_from": start.init_from,
        }
        checkpoints.save(state, record)

    stop_wanted = processes.Vote()

    def stop_if_asked() -> None:
        """At a step boundary: all processes leave at the same one."""
        checkpoints.check()
        if stop_wanted(stop.requested):
            if step > first_step:
                save(epoch_ended=False)
            checkpoints.wait()
            raise stop.stopped(f"saved at step {step:,} of {total_steps:,}")

    def waiting(what: str, work: Callable[[], T]) -> T:
        """Does what takes long without leaving signals unheard, where no other process waits."""
        display.doing(what)
        return work() if jax.process_count() > 1 else Background(work).result(stop_if_asked)

    def stop_if_bad(totals: Totals) -> None:
        bad = int(totals.first_bad)
        if bad >= 0:
            good = checkpoints.steps()
            raise NonFiniteError(
                f"the loss or a gradient is not finite at step {bad} "
                f"(epoch {bad // steps_per_epoch}); last good checkpoint: "
                f"{good[-1] if good else 'none'} in {checkpoints.folder}"
            )

    display.start_progress(total_steps, step)
    held.callback(checkpoints.close)
    held.callback(display.stop_progress)
    with stop.deferred():
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
            rows = placement.split_rows(index), placement.split_rows(valid)
            if step == epoch * steps_per_epoch:
                totals = Totals.zero()
            totals = Totals(*map(placement.replicate, totals))
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
                if saving.every_steps:
                    count = min(count, saving.every_steps - step % saving.every_steps)
                state, totals = run_steps(state, totals, images, labels, *rows, row, count)
                step += count
                # One call behind, so that the device always has the next one waiting.
                stop_if_bad(before)
                # Compilation ends when its first call is handed over; then the clock starts.
                clock.tick(ticked)
                display.estimate_once(
                    clock.seconds_per_step, total_steps - step, device.device_kind
                )
                display.advance(step, clock.images_per_second)
                if due(step, saving.every_steps) and step % steps_per_epoch:
                    stop_if_bad(totals)
                    save(epoch_ended=False)
            stop_if_bad(totals)
            clock.tick(count)
            clock.stop()
            stop_if_asked()
            done = epoch + 1
            last = done == config.num_epochs
            now = last or due(done, config.eval.every_epochs)
            evaluated = {}
            if now or experiment.phase_of(done) is not phase:
                evaluate = partial(report.evaluate_all, evaluators, state, phase, class_counts)
                evaluated = waiting("evaluating", evaluate)
            rate = float(experiment.rates[epoch])
            record = report.epoch_record(totals, phase, done, rate, clock, evaluated)
            if evaluated:
                display.evaluated(done, config.num_epochs, record["train/loss"], evaluated["test"])
            if log is not None:
                log.write(step, record)
            rolling = due(done, saving.every_epochs) or due(step, saving.every_steps)
            if last or done in saving.epochs or rolling:
                save(epoch_ended=True)
        checkpoints.wait()
    display.stop_progress()

    if not evaluated:
        last_phase = experiment.phase_of(config.num_epochs - 1)
        evaluate = partial(report.evaluate_all, evaluators, state, last_phase, class_counts)
        evaluated = waiting("evaluating", evaluate)
    if first_process:
        seconds = start.seconds + time.monotonic() - started
        summary = {
            **report.make_summary(config, experiment, state, evaluated),
            "init_from": start.init_from,
            "images_per_second": clock.images_per_second,
            "seconds": seconds,
            "versions": {name: v for name, v in environment.items() if name != "devices"},
        }
        writer.write_json(workdir / "summary.json", summary)
    title = f"{workdir}, epoch {config.num_epochs}"
    display.table(title, evaluated["test"], experiment.dataset.class_names)
    if first_process and at_end is not None:
        at_end(experiment)
    return state


def due(count: int, every: int) -> bool:
    """Whether something that happens every so many times happens after `count` of them."""
    return every > 0 and count % every == 0
