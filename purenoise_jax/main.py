"""The command line: trains by a config file.

python -m purenoise_jax.main --config configs/digits_lt.py --workdir runs/digits
"""

import logging
import shlex
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

import jax
from absl import flags

from purenoise_jax.config import packaged
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.flags import help_text, parse
from purenoise_jax.config.validation import validate
from purenoise_jax.runtime import compilation_cache
from purenoise_jax.runtime.console import Display, show, show_error, show_traceback
from purenoise_jax.runtime.distributed import initialize
from purenoise_jax.runtime.errors import ConfigError, one_line
from purenoise_jax.runtime.exit_codes import run_command, run_program
from purenoise_jax.runtime.paths import workdir_path
from purenoise_jax.runtime.program_names import as_called
from purenoise_jax.training.build import wants_fresh_start
from purenoise_jax.training.experiment import Experiment
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.resume import resume_hint


def write_report(workdir: Path, display: Display, debug: bool, experiment: Experiment) -> None:
    """Writes report.html into the workdir of a run that has just ended.

    The run is complete and saved by then: a failure here only shows a warning.

    Args:
        workdir: of the run.
        display: where its path is shown.
        debug: show a traceback with a warning.
        experiment: what was run.
    """
    try:
        # Imported here, because drawing is not needed earlier and takes a second to import.
        from purenoise_jax.analysis.html_report import report_finished

        with warnings.catch_warnings():
            # Matplotlib warns of each letter of a class name that the font lacks.
            warnings.simplefilter("ignore")
            path = report_finished(workdir, experiment)
        display.note(f"report: {path}")
    except Exception as error:
        if debug:
            show_traceback()
        reason = one_line(error) or type(error).__name__
        show_error(f"warning: no report was written: {reason[:300]}", style="yellow")


def main(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; errors of the user take one line."""
    return run_command(
        partial(_run, argv), debug="--debug" in argv, interrupted="interrupted before it began"
    )


def _run(argv: Sequence[str]) -> int:
    values = parse(argv)
    if values.help:
        show(as_called(help_text(values.config or default_config())))
        return 0
    if values.config is None:
        raise ConfigError("--config=FILE is missing, such as configs/digits_lt.py; see --help")
    if not values.workdir:
        raise ConfigError("--workdir=DIR is missing, such as runs/first; see --help")
    validate(values.config)
    workdir = workdir_path(values.workdir)
    try:
        _train(values, workdir, packaged.told(argv))
    except KeyboardInterrupt:
        again = resume_hint(wants_fresh_start(values.config), workdir, " at the last checkpoint")
        raise KeyboardInterrupt(f"interrupted; {again}") from None
    return 0


def _train(values: flags.FlagValues, workdir: Path, told: Sequence[str]) -> None:
    with initialize(
        values.coordinator,
        values.num_processes,
        values.process_id,
        heartbeat=values.heartbeat,
        start_timeout=values.start_timeout,
    ):
        compilation_cache.enable()
        # Orbax logs every step of a save.
        logging.getLogger("absl").setLevel(logging.ERROR)
        display = Display(active=jax.process_index() == 0)
        for line in told:
            display.note(line)
        at_end = partial(_end, workdir, display, values)
        train_and_evaluate(values.config, workdir, display, at_end)


def _end(workdir: Path, display: Display, values: flags.FlagValues, experiment: Experiment) -> None:
    """Names the command that shows the curves, and writes the report if the config asks for it."""
    display.note(f"curves: {_tensorboard(workdir)}")
    if values.config.report:
        write_report(workdir, display, values.debug, experiment)


def _tensorboard(workdir: Path) -> str:
    """The command that shows the curves, after that which installs it where it is not there."""
    show_curves = f"tensorboard --logdir {shlex.quote(str(workdir))}"
    try:
        metadata.version("tensorboard")
    except metadata.PackageNotFoundError:
        return f"pip install tensorboard && {show_curves}"
    return show_curves


if __name__ == "__main__":
    run_program(main, sys.argv)
