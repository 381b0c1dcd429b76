"""The command line for figures and reports.

python -m purenoise_jax.analysis FIGURE RUN...
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from purenoise_jax.analysis.figure_style import Options, save
from purenoise_jax.analysis.figures import FIGURES
from purenoise_jax.analysis.html_report import write_report
from purenoise_jax.inference.runs import Run, load_runs
from purenoise_jax.runtime import compilation_cache
from purenoise_jax.runtime.console import show
from purenoise_jax.runtime.errors import ConfigError, PureNoiseError, one_line, unknown
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.paths import expand
from purenoise_jax.runtime.threads import exit_process

REPORT, ALL = "report", "all"
MORE = {
    REPORT: "everything about the runs in one HTML file, report.html",
    ALL: "every figure that can be drawn",
}
EXAMPLES = """
RUN is the workdir of a training. A figure is written as PNG and PDF, its numbers as JSON.

exit codes: 0 done, 2 usage or config, 3 data, 4 checkpoint, 5 storage, 130 interrupted, 1 anything
            else

examples:
  python -m purenoise_jax.analysis report runs/open
  python -m purenoise_jax.analysis report runs/erm runs/open --out comparison
  python -m purenoise_jax.analysis groups runs/erm runs/drs runs/open
  python -m purenoise_jax.analysis subsets runs/open --indices Cui=cifar10_cui.txt
"""


def parser(figure: str = "") -> argparse.ArgumentParser:
    """Builds the parser of the command line's arguments.

    Args:
        figure: what is drawn, of a program that draws nothing else; "" = it is an argument.
    """
    helps = {name: entry.help for name, entry in FIGURES.items()} | MORE
    width = max(map(len, helps)) + 2
    listing = "figures:\n" + "\n".join(f"  {n:<{width}}{text}" for n, text in helps.items()) + "\n"
    parse = Parser(
        prog=f"python -m purenoise_jax.analysis {figure}".strip(),
        description="Draws figures from the workdirs of runs, finished or not, and writes reports."
        if not figure
        else f"Writes {helps[figure]}.",
        epilog=f"{'' if figure else listing}{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if figure:
        parse.set_defaults(figure=figure)
    else:
        parse.add_argument("figure", metavar="FIGURE", help="one of the figures below")
    parse.add_argument("runs", nargs="+", metavar="RUN", help="workdir of a run")
    parse.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the files; default: RUN/figures of the first run, and RUN itself for the "
        "report of one run",
    )
    parse.add_argument(
        "--epoch",
        type=int,
        help="show the run after this many epochs; default: its newest checkpoint, for images the "
        "start of its last phase",
    )
    parse.add_argument("--seed", type=int, default=0, help="seed of the figure's random choices")
    parse.add_argument(
        "--images",
        type=int,
        default=0,
        help="number of images, for boundaries and class_areas of planes; 0 = the figure's own",
    )
    parse.add_argument(
        "--rounds",
        type=int,
        default=0,
        help="number of random sub-samples; 0 = the figure's own",
    )
    parse.add_argument(
        "--data", default="", metavar="PATH", help="location of the data, if it has moved"
    )
    parse.add_argument(
        "--ood", default="", metavar="NAME", help="out-of-distribution data set, such as cifar100"
    )
    parse.add_argument(
        "--ood_data",
        default="",
        metavar="PATH",
        help="location of that data set; default: beside the run's data",
    )
    parse.add_argument(
        "--indices",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="for subsets and subset_images: a list of training images, one index per line",
    )
    parse.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse


def _refuse_unused(figure: str, options: Options) -> None:
    """Refuses options that the figure does not use, because they would seem to have an effect."""
    if figure == ALL:
        return
    used = {"seed", *(FIGURES[figure].options if figure in FIGURES else ())}
    for field in dataclasses.fields(Options):
        if field.name not in used and getattr(options, field.name) != field.default:
            flag = {"ood_name": "ood", "ood_path": "ood_data"}.get(field.name, field.name)
            raise ConfigError(f"--{flag} has no effect on {figure}; leave it out")


def main(argv: Sequence[str], figure: str = "") -> int:
    """Runs one command line, given without the program's name, and returns its exit code.

    Args:
        argv: the arguments.
        figure: see `parser`.
    """
    analyse = partial(_analyse, argv, figure)
    return run_command(analyse, debug="--debug" in argv, interrupted="interrupted")


def _analyse(argv: Sequence[str], figure: str) -> int:
    # Orbax logs every step of a restore.
    logging.getLogger("absl").setLevel(logging.ERROR)
    args = parser(figure).parse_args(argv)
    names = [*FIGURES, *MORE]
    if args.figure not in names:
        raise unknown("FIGURE", args.figure, names)
    for name in ("images", "rounds", "seed"):
        if getattr(args, name) < 0:
            raise ConfigError(f"--{name}={getattr(args, name)} is not legal; legal: at least 0")
    options = Options(
        args.epoch,
        args.seed,
        args.images,
        args.ood,
        args.ood_data,
        tuple(map(_named_file, args.indices)),
        args.rounds,
    )
    _refuse_unused(args.figure, options)
    runs = load_runs(args.runs, args.data)
    out = expand(args.out, "--out") if args.out else None
    compilation_cache.enable()
    if args.figure == REPORT:
        show(one_line(write_report(runs, out)))
    elif args.figure == ALL:
        _draw_all(runs, options, out)
    else:
        _draw(args.figure, runs, options, out)
    return 0


def _draw(name: str, runs: Sequence[Run], options: Options, out: Path | None) -> None:
    drawing = FIGURES[name].draw(runs, options)
    for path in save(drawing, out or runs[0].path / "figures", name):
        show(one_line(path))


def _draw_all(runs: Sequence[Run], options: Options, out: Path | None) -> None:
    drawn = 0
    for name in FIGURES:
        try:
            _draw(name, runs, options, out)
            drawn += 1
        except PureNoiseError as error:
            show(one_line(f"{name}: not drawn: {error}"))
    if not drawn:
        raise ConfigError("none of the figures can be drawn, see above")


def _named_file(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise ConfigError(f"--indices={text} is not legal; legal: NAME=FILE")
    return name, str(expand(file, f"--indices={name}"))


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
