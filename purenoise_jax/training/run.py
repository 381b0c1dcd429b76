"""The parts of a run around its loop: compilation, signals, checkpoints, records, display."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from purenoise_jax.config.run_record import CONFIG_FILE
from purenoise_jax.data.feed import ReadAhead
from purenoise_jax.data.rows import Rows
from purenoise_jax.runtime import files, multihost
from purenoise_jax.runtime.console import TOO_SLOW_SECONDS, Display
from purenoise_jax.runtime.numerics import numeric_settings
from purenoise_jax.runtime.preemption import PreemptionHandler
from purenoise_jax.training import records
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.bad_images import BadImages
from purenoise_jax.training.best import Best
from purenoise_jax.training.compile_steps import CompiledSteps, compile_steps
from purenoise_jax.training.cost import offer
from purenoise_jax.training.experiment import Experiment, Phase
from purenoise_jax.training.metric_writer import METRICS, MetricsWriter, read_metrics
from purenoise_jax.training.metrics import TRAINING_SET
from purenoise_jax.training.nonfinite_steps import NonFiniteSteps
from purenoise_jax.training.selection import selected_epochs, selected_lines
from purenoise_jax.training.setup import RunSetup
from purenoise_jax.training.throughput import StepTimer

# Steps of one call on an accelerator, unless the config says how many: at most so many, and at most
# about a second's worth, because a signal is only seen between calls. Several processes run the
# same number, whatever their clocks measure.
STEPS_PER_CALL, SECONDS_PER_CALL, STEPS_PER_CALL_TOGETHER = 50, 1.0, 10


class TrainingRun:
    """A run between its first step and its last; `loop.train` drives it.

    Args:
        setup: the run, checked and built.
        workdir: of the run.
        display: where progress is shown.
        stop: sees the signals that ask the run to stop.
        cleanup: closes what the run has opened.

    Attributes:
        experiment: what is run.
        state: the train state after the newest step.
        metrics: the metrics of the current epoch up to that step.
        inputs: arrays that every step reads, on all devices.
        step: completed steps.
    """

    def __init__(
        self,
        setup: RunSetup,
        workdir: Path,
        display: Display,
        stop: PreemptionHandler,
        cleanup: contextlib.ExitStack,
    ) -> None:
        self.experiment: Experiment = setup.experiment
        self.step = self._first_step = setup.step
        self._setup, self._options, self._restored = setup, setup.options, setup.start
        self._workdir, self._display, self._stop = workdir, display, stop
        self._checkpoints, self._steps_per_epoch = setup.checkpoints, setup.steps_per_epoch
        self._total_steps = self._options.num_epochs * self._steps_per_epoch
        self._epoch_ended = self._restored.epoch_ended
        self._is_first_process = jax.process_index() == 0
        self._any_process = multihost.AnyProcess()
        self._device = jax.devices()[0]
        most = STEPS_PER_CALL if jax.process_count() == 1 else STEPS_PER_CALL_TOGETHER
        default = 1 if self._device.platform == "cpu" else most
        streams = self.experiment.streams
        self._steps_per_call = 1 if streams else self._options.steps_per_call or default

        self._best = Best.restored(
            self._options.checkpoint_best, self._restored.best, self._checkpoints.steps()
        )
        # In the background, while the parameters are drawn and the data are sent to the devices.
        self._compiled: dict[int, CompiledSteps] = {}
        if self.step < self._total_steps and not self._ends_early:
            self._compile(self.experiment.phase_of(self.step // self._steps_per_epoch))
        restored = self._restored.state
        self.state = stop.waiting(self.experiment.init) if restored is None else restored

        self._log: MetricsWriter | None = None
        if self._is_first_process:
            files.write_json(workdir / CONFIG_FILE, setup.config_record)
            # The record of an epoch that has not ended is written when it ends.
            continued = self.step - (not self._epoch_ended)
            facts = records.facts_of(setup.config_record["fixed"], self._options, self.experiment)
            self._log = MetricsWriter(workdir, continued, display.warn, facts)
            cleanup.callback(self._log.close)
        display.header(
            records.header_lines(
                self._options,
                workdir,
                self.experiment,
                self.state,
                self._restored.init_from,
            )
        )
        for line in setup.messages():
            display.note(line)
        for line in self.experiment.training.shared:
            display.warn(line)

        replicate = self.experiment.placement.replicate
        self.inputs = jax.tree.map(replicate, self.experiment.inputs())
        bad = BadImages(workdir, display)
        bad.at_start(self.experiment.dataset.left_out)
        self._feed = self.experiment.feed(bad.note)
        self._evaluators = self.experiment.evaluators(
            self._options.eval_batch_size,
            bad.note,
            self.inputs if self._options.eval_train else None,
        )
        for reader in (self._feed, *self._evaluators.values()):
            cleanup.callback(reader.close)
        self._ahead: ReadAhead | None = None
        self._evaluated: dict[str, dict[str, Any]] = {}
        self._results: dict[str, records.Results] = {}
        self._timer = StepTimer(
            self._options.batch_size,
            self._restored.measured_steps,
            self._restored.measured_seconds,
        )
        self._nonfinite = NonFiniteSteps(
            workdir,
            display,
            self._checkpoints,
            self._steps_per_epoch,
            step=self.step,
            count=self._restored.skipped_steps,
            in_a_row=self._restored.skipped_in_a_row,
            writes=self._log is not None,
        )
        self._check_finite: Callable[[EpochMetrics], None] | None = None
        self.metrics = EpochMetrics.zero(self._steps_per_epoch)
        if self._restored.totals is not None:
            self.metrics = self.metrics.from_json(self._restored.totals)
        self._metrics_before, self._count = self.metrics, 0
        self._timed_phase: int | None = None
        display.start_progress(self._total_steps, self.step)
        cleanup.callback(self._checkpoints.close)
        cleanup.callback(display.stop_progress)

    def epochs_left(self) -> Iterator[int]:
        """The epochs to train, counted from 0; the first may be under way already."""
        first = (self.step - (0 if self._epoch_ended else 1)) // self._steps_per_epoch
        for epoch in range(first, self._options.num_epochs):
            if self._ends_early:
                return
            yield epoch

    def compiled_steps(self, phase: Phase) -> CompiledSteps:
        """The compiled training step of a phase."""
        if phase.start not in self._compiled:
            self._compile(phase)
        if jax.process_count() == 1:
            self._display.doing("compiling")
            self._compiled[phase.start].wait(self.stop_if_requested)
        if self._timed_phase == phase.start:
            self._timer.start()
        self._timed_phase = phase.start
        return self._compiled[phase.start]

    def begin_epoch(self, epoch: int, phase: Phase) -> Rows | ReadAhead:
        """Prepares an epoch, and returns the rows of all its steps, [steps, B]."""
        index, valid = self.experiment.sampler.epoch(epoch, phase.recipe.class_probs)
        self._check_finite = partial(self._nonfinite.check, epoch=epoch, index=index, valid=valid)
        if self.step == epoch * self._steps_per_epoch:
            if epoch == phase.start:
                self.state = self.experiment.enter(phase, self.state)
            self.metrics = EpochMetrics.zero(self._steps_per_epoch)
        placement = self.experiment.placement
        self.metrics = jax.tree.map(placement.replicate, self.metrics)
        self._count = 0
        start = epoch * self._steps_per_epoch
        augments = phase.recipe.augments
        rows = self._feed.epoch(index, valid, self.step - start, start, augments)
        self._ahead = rows if isinstance(rows, ReadAhead) else None
        return rows

    def next_steps(self, epoch: int) -> tuple[int, int]:
        """The next step, counted within the epoch, and how many steps a call runs; 0 at its end."""
        first = self.step - epoch * self._steps_per_epoch
        if first == self._steps_per_epoch:
            return first, 0
        self.stop_if_requested()
        if self._ahead is not None:
            # Several processes stop together, and cannot ask each other while one of them waits.
            alone = jax.process_count() == 1
            self._ahead.wait(first, self.stop_if_requested if alone else None)
        self._display.doing(f"epoch {epoch + 1}/{self._options.num_epochs}")
        count = min(self._steps_per_call, self._steps_per_epoch - first)
        if not self._options.steps_per_call and jax.process_count() == 1:
            count = min(count, self._timer.steps_within(SECONDS_PER_CALL))
        every = self._options.checkpoint_every_steps
        return first, min(count, every - self.step % every) if every else count

    def advance(self, count: int, metrics_before: EpochMetrics) -> None:
        """Counts steps that have been dispatched, and saves within an epoch where that is due.

        Args:
            count: steps of the call.
            metrics_before: of the epoch before the call. Only these are looked at, so that the
                device always has the next call waiting.
        """
        self.step, self._epoch_ended = self.step + count, False
        self._check(metrics_before)
        # Compilation ends when its first call is dispatched; the timer starts there.
        self._timer.tick(self._count)
        self._count = count
        left = self._total_steps - self.step
        self._display.estimate_once(
            self._timer.seconds_per_step, left, self._device.device_kind, self._smaller
        )
        self._display.advance(self.step, self._timer.images_per_second)
        within_epoch = self.step % self._steps_per_epoch
        if within_epoch and _is_due(self.step, self._options.checkpoint_every_steps):
            self.save()

    def _smaller(self, left: float) -> str:
        """Offers a smaller network to a run that has more seconds left than it should."""
        return offer(
            self._options.model,
            self.experiment.model,
            self.experiment.training.stats.image_shape,
            time=left,
            most=TOO_SLOW_SECONDS,
            resizes=self._options.image_size > 0,
        )

    def end_epoch(self, epoch: int, phase: Phase) -> None:
        """Evaluates, records and saves, each where it is due after an epoch."""
        self._check(self.metrics)
        self._timer.tick(self._count)
        self._timer.stop()
        self.stop_if_requested()
        options, done = self._options, epoch + 1
        is_last = done == options.num_epochs
        phase_ends = self.experiment.phase_of(done) is not phase
        self._evaluated, best = {}, self._best
        if is_last or phase_ends or _is_due(done, options.eval_every_epochs):
            self._display.doing("evaluating")
            self._evaluate(phase, ["val", TRAINING_SET], self.stop_if_requested)
            best = self._best.after(
                self._evaluated.get("val"),
                self.step,
                done,
                counts=phase is self.experiment.phases[-1],
            )
            is_last = is_last or self._is_patience_over(best)
            if is_last or options.eval_test == "always":
                self._evaluate(phase, ["test"], self.stop_if_requested)
            # They are for the files at the end, and may be large.
            self._results = self._results if is_last else {}
        rate = float(self.experiment.rates[epoch])
        record = records.epoch_record(self.metrics, phase, done, rate, self._timer, self._evaluated)
        if self._evaluated:
            loss = record.get("train/loss")
            self._display.evaluated(done, options.num_epochs, loss, self._evaluated)
        if self._log is not None:
            self._log.write(self.step, record)
        self._epoch_ended, self._best = True, best
        is_rolling = _is_due(done, options.checkpoint_every_epochs) or _is_due(
            self.step, options.checkpoint_every_steps
        )
        is_best = best.value is not None and best.step == self.step
        if is_last or is_rolling or is_best or done in options.checkpoint_epochs:
            self.save()
        if self._ends_early and done < options.num_epochs:
            self._display.note(
                f"ends after epoch {done}, because {best.stale} evaluations in a row had no better "
                f"{best.metric} on validation than that after epoch {best.epoch}"
            )

    def stop_if_requested(self) -> None:
        """Ends the run at a step boundary, the same one in all processes, with its state saved.

        Raises:
            Stopped: a process got a signal.
        """
        self._checkpoints.check()
        if not self._any_process(self._stop.requested):
            return
        computed = self.step > self._first_step
        if computed:
            self.save()
        self._checkpoints.wait()
        where = f"step {self.step:,} of {self._total_steps:,}"
        saved = computed or self._checkpoints.steps()
        raise self._stop.stopped(f"saved at {where}" if saved else "before the first step")

    def save(self) -> None:
        """Starts to write a checkpoint of the newest step."""
        if self._check_finite is not None:
            self._check(self.metrics)
        self._display.doing("saving")
        record = {
            **self.experiment.identity,
            # With these a checkpoint can be used without the data.
            "class_names": self.experiment.dataset.class_names,
            "epoch": self.step / self._steps_per_epoch,
            "epoch_ended": self._epoch_ended,
            "totals": self.metrics.to_json(),
            "steps_per_epoch": self._steps_per_epoch,
            "environment": self._setup.environment,
            "seconds": self._seconds(),
            "measured_steps": self._timer.steps,
            "measured_seconds": self._timer.seconds,
            "skipped_steps": self._nonfinite.count,
            "skipped_in_a_row": self._nonfinite.in_a_row(self.step),
            "init_from": self._restored.init_from,
            "best": self._best.to_json(),
        }
        best = None if self._best.value is None else self._best.step
        self._checkpoints.save(self.state, record, best)

    def finish(self, at_end: Callable[[Experiment], None] | None) -> None:
        """Waits for the last checkpoint, and writes and shows the summary."""
        self._checkpoints.wait()
        self._stop.poll()
        self._display.stop_progress()
        done = self.step // self._steps_per_epoch
        if not self._evaluated:
            phase = self.experiment.phase_of(done - 1)
            self._evaluate(phase, ["test", "val", TRAINING_SET])
            if self._log is not None:
                # A run that had ended may be started again with another split to evaluate. One that
                # trains nothing has no record yet.
                self._log.complete(self.step, records.final_record(phase, done, self._evaluated))
            if self._setup.only_evaluates:
                val = self._evaluated.get("val")
                self._best = self._best.after(val, self.step, done, counts=True)
                self.save()
                self._checkpoints.wait()
        selected = self._selected()
        counts = self.experiment.training.stats.class_counts
        intervals = records.intervals_of(self._results, counts)
        if self._is_first_process:
            # Before the summary, whose presence says that the run has finished.
            records.save_results(self._workdir, self._results, self.step)
            summary = {
                **records.make_summary(self._options, self.experiment, self.state, self._evaluated),
                "intervals": intervals,
                "epochs": done,
                "ended_early": done < self._options.num_epochs,
                "selected": selected,
                "best": self._best.to_json(),
                "init_from": self._restored.init_from,
                "skipped_steps": self._nonfinite.count,
                "images_per_second": self._timer.images_per_second,
                "seconds": self._seconds(),
                "versions": self._setup.versions,
                "settings": numeric_settings(),
            }
            files.write_json(self._workdir / "summary.json", summary)
            if self._log is not None:
                self._log.finish()
        title = f"{self._workdir}, epoch {done}"
        dataset, others = self.experiment.dataset, {**self._evaluated}
        numbers = others.pop(dataset.shown, None)
        if numbers is None:
            self._display.note(f"{title}: all images train, so none are left to measure with")
        else:
            self._display.table(
                title,
                numbers,
                dataset.class_names,
                shown=dataset.shown,
                val=others.get("val"),
                fitted=others.get(TRAINING_SET),
                intervals=intervals,
            )
        for line in selected_lines(selected):
            self._display.note(line)
        best = self._best
        if best.value is not None and best.step in self._checkpoints.steps():
            kept = "kept beside the last" if best.step != self.step else "the last"
            self._display.note(
                f"the best {best.metric} on validation, {best.value:.4f}, has the checkpoint after "
                f"epoch {best.epoch}, {kept}: {self._checkpoints.folder / str(best.step)}"
            )
        if self._is_first_process and at_end is not None:
            self._stop.waiting(partial(at_end, self.experiment))

    def _selected(self) -> dict[str, dict[str, Any]]:
        """The epoch that each rule of `selection.SELECT` chooses; none without metrics.jsonl."""
        try:
            return selected_epochs(read_metrics(self._workdir / METRICS))
        except OSError:
            return {}

    def _compile(self, phase: Phase) -> None:
        """Starts to compile the step of a phase; programs of other phases are dropped."""
        steps = compile_steps(
            self.experiment.step_fn(phase),
            self.experiment.placement,
            looped=self._steps_per_call > 1,
            streamed=self.experiment.streams,
            shapes=self.experiment.step_shapes(),
        )
        self._compiled = {phase.start: steps}

    def _check(self, metrics: EpochMetrics) -> None:
        """Waits for the steps of these metrics, and reports those that were skipped."""
        assert self._check_finite is not None, "an epoch has begun"
        self._check_finite(metrics)

    @property
    def _ends_early(self) -> bool:
        """True if the run has ended before its last epoch."""
        return self._epoch_ended and self._is_patience_over(self._best)

    def _is_patience_over(self, best: Best) -> bool:
        patience = self._options.eval_patience
        return patience > 0 and best.stale >= patience

    def _evaluate(
        self, phase: Phase, splits: Sequence[str], poll: Callable[[], None] | None = None
    ) -> None:
        """Adds the numbers of splits, of those that there are, to those of this epoch."""
        evaluators = {name: self._evaluators[name] for name in splits if name in self._evaluators}
        counts = self.experiment.training.stats.class_counts
        # With patience it is known only afterwards.
        may_be_last = self.step == self._total_steps or self._options.eval_patience > 0
        work = partial(records.evaluate_all, evaluators, self.state, phase, counts, may_be_last)
        evaluated, results = self._stop.waiting(work, poll)
        before = self._results if self._evaluated else {}
        self._evaluated = {**self._evaluated, **evaluated}
        self._results = {**before, **results}

    def _seconds(self) -> float:
        """Seconds spent on the run, by this process and those before it."""
        return self._restored.seconds + time.monotonic() - self._setup.started


def _is_due(count: int, every: int) -> bool:
    """True if what happens every so many times happens after `count` of them."""
    return every > 0 and count % every == 0
