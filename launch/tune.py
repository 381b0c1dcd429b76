"""Searches config fields, and chooses by validation images; test images are not used.

    python -m launch.tune --config configs/digits_lt.py --field method=erm,drs,open \
        --field optimizer.learning_rate=1e-2..1:log --trials 20 --halving 3

Each training has a folder under --out. A search that was stopped continues with the same command:
the trials are kept in trials.json, and trainings that are done are read from their folders. With
--sampler tpe the later trials depend on the scores of the earlier ones.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from purenoise_jax.config import packaged
from purenoise_jax.config.validation import validate
from purenoise_jax.runtime.console import SafeConsole
from purenoise_jax.runtime.errors import ConfigError, NonFiniteError, NothingToMeasureError
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.paths import expand
from purenoise_jax.runtime.threads import exit_process
from purenoise_jax.training.build import build

from . import choice, tuned
from .comparison import Measure
from .engines import engine
from .engines.one_run import failure, train_one
from .given_config import OWN_IMAGES, refuse_other_data, title_of
from .halving import Round, promoted
from .parzen import STARTUP
from .planning import Task
from .run_states import show_states
from .search_plan import RANDOM, SAMPLERS, TPE, SearchPlan
from .tuned import Search, Trial

FAILED = 1
TRIALS, SEEDS, LEAST_EPOCHS = 20, 1, 5
# Trains some trials as long as a round says, see `_train_trials`.
Train = Callable[[Sequence[int], Round, str], tuple[list[Trial], bool]]
COMMAND = (sys.executable, "-m", f"{__package__}.tune")


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line, but for the config fields."""
    parse_arguments = Parser(
        prog="python -m launch.tune",
        description="Draws values of config fields, trains with each, and chooses by the "
        "validation images. The test images are not used.",
        epilog="example:\n  python -m launch.tune --config digits_lt:epochs=45 "
        "--field optimizer.learning_rate=1e-2..1:log\n      --field method=erm,drs,open "
        "--trials 20 --halving 3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parse_arguments.add_argument
    add(
        "--config",
        default="",
        metavar="FILE[:ARGS]",
        help="as for a training; --config.FIELD=VALUE changes a field of all trainings; "
        "default with --data: images, for your own",
    )
    add(
        "--field",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="a config field, or an argument of the config file such as method, and its values: "
        "A,B,C or LOW..HIGH or LOW..HIGH:log; once for each field",
    )
    add("--trials", type=int, default=TRIALS, help=f"draws of all fields ({TRIALS})")
    add(
        "--sampler",
        choices=SAMPLERS,
        default=RANDOM,
        help=f"{TPE} = after {STARTUP} trials drawn at random, draw where the trials before were "
        "good, as many at a time as --jobs (tree-structured Parzen estimator); not with --halving "
        f"({RANDOM})",
    )
    add(
        "--halving",
        type=int,
        default=0,
        metavar="FACTOR",
        help="begin with short trainings, and train the best of FACTOR FACTOR times as long, and "
        "so on; 0 = train all at full length (0)",
    )
    add(
        "--least-epochs",
        type=int,
        default=LEAST_EPOCHS,
        help=f"with --halving: the shortest training, in epochs ({LEAST_EPOCHS})",
    )
    add(
        "--metric",
        choices=tuple(choice.METRICS),
        default="balanced_accuracy",
        help="of the validation images (balanced_accuracy)",
    )
    add("--seeds", type=int, default=SEEDS, help=f"trainings of each trial ({SEEDS})")
    add(
        "--folds",
        type=int,
        help=f"parts of the training images, of which each seed has the next for validation; "
        f"default {choice.FOLDS}, unless the data have validation images or the config holds some "
        "out; 0 = no folds",
    )
    add("--search-seed", type=int, default=0, help="random seed of the draws (0)")
    add(
        "--data",
        default="",
        metavar="PATH",
        help="the place of the data: --config.data.path, or path= of the config images",
    )
    add("--out", default="runs/tune", help="folder of the trainings and the table")
    engine.add_options(parse_arguments, cluster=False)
    add("--status", action="store_true", help="only list the trainings planned so far")
    add("--only-table", action="store_true", help="only make the table, train nothing")
    add("--run", metavar="WORKDIR", help="only the training with this workdir; no table")
    add("--debug", action="store_true", help="show tracebacks")
    return parse_arguments


def main(argv: Sequence[str]) -> int:
    """Runs one command line, without the program's name, and returns its exit code."""
    return run_command(
        partial(_tune, argv),
        debug="--debug" in argv,
        interrupted="interrupted; the same command continues where it stopped",
    )


def _tune(argv: Sequence[str]) -> int:
    args, fields = parser().parse_known_args(argv)
    console = SafeConsole(soft_wrap=True)
    least = {"trials": 1, "seeds": 1, "folds": 0, "least_epochs": 1, "search_seed": 0}
    for name, smallest in least.items():
        value = getattr(args, name)
        if value is not None and value < smallest:
            raise ConfigError(f"--{name.replace('_', '-')}={value} must be at least {smallest}")
    if args.halving < 0 or args.halving == 1:
        raise ConfigError(f"--halving={args.halving} must be 0, or at least 2")
    engine.prepare(args)
    root = expand(args.out, "--out").resolve()
    plan = SearchPlan(args, fields, root)
    # Orbax logs every step of a save.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if args.run:
        every = (
            task
            for one in plan.rounds
            for trial in range(len(plan.trials))
            for of_seed in plan.tasks(trial, one.epochs)
            for task in of_seed
        )
        wanted = next((task for task in every if task.workdir == Path(args.run)), None)
        return train_one(args.run, [] if wanted is None else [wanted], False, console)
    for line in packaged.told(["tune", "--config", args.config or OWN_IMAGES]):
        console.print(line)
    # The shortest and the longest of each trial, so that a search that cannot finish is refused
    # before it computes anything.
    for one in {plan.rounds[0], plan.rounds[-1]}:
        for trial in range(len(plan.trials)):
            for config in plan.searching(trial, one.epochs):
                validate(config)
    if not (args.status or args.only_table):
        root.mkdir(parents=True, exist_ok=True)
        plan.write()
        console.print(
            tuned.budget_line(plan.rounds, plan.rounds[0].trials, args.trials, args.seeds)
        )
    search, unexpected = _search(args, argv, plan, root, console)
    if args.status:
        return 0
    if all(trial.score is None for trial in search.trials):
        console.print("no trial is done")
        return FAILED
    best = search.ranked[0]
    command = _command(plan, best, root)
    tuned.show(search, command, console)
    for path in tuned.write(search, command, root / "tables"):
        console.print(str(path))
    return FAILED if unexpected else 0


def _search(
    args: argparse.Namespace,
    argv: Sequence[str],
    plan: SearchPlan,
    root: Path,
    console: SafeConsole,
) -> tuple[Search, bool]:
    """Trains all trials, round after round, or part after part as they are proposed.

    Returns:
        The search, and True if a training failed for another reason than numbers that are not
        finite.
    """
    train = partial(_train_trials, args, argv, plan, root=root, console=console)
    found, unexpected = (_proposed if args.sampler == TPE else _halved)(args, plan, train)
    title = title_of(plan.config)
    return Search(
        title, tuple(map(str, plan.space)), args.metric, tuple(plan.rounds), tuple(found)
    ), unexpected


def _halved(args: argparse.Namespace, plan: SearchPlan, train: Train) -> tuple[list[Trial], bool]:
    """Trains round after round, of which each has the best of the round before."""
    found = {n: Trial(n, values, Round(0, 0), {}) for n, values in enumerate(plan.trials)}
    chosen, unexpected = list(found), False
    for place, one in enumerate(plan.rounds):
        said = f"round {place + 1} of {len(plan.rounds)}: {tuned.round_text(one)}"
        results, failed = train(chosen, one, said)
        unexpected = unexpected or failed
        for result in results:
            # What was not trained further keeps the number of the round before.
            if result.scores or not place:
                found[result.number] = result
        to_do = any(result.score is None and not result.failed for result in results)
        if place + 1 == len(plan.rounds) or (to_do and (args.status or args.only_table)):
            break
        best = promoted([result.score for result in results], plan.rounds[place + 1].trials)
        chosen = [chosen[i] for i in best]
    return [*found.values()], unexpected


def _proposed(args: argparse.Namespace, plan: SearchPlan, train: Train) -> tuple[list[Trial], bool]:
    """Trains the trials there are, then part after part those that their scores suggest."""
    (one,) = plan.rounds
    found: list[Trial] = []
    unexpected = False
    while len(found) < len(plan.trials):
        chosen = range(len(found), len(plan.trials))
        said = f"trials {chosen[0] + 1} to {chosen[-1] + 1} of {one.trials}"
        results, failed = train(chosen, one, said)
        unexpected, found = unexpected or failed, [*found, *results]
        to_do = any(result.score is None and not result.failed for result in results)
        if to_do or args.status or args.only_table or len(found) == args.trials:
            break
        plan.extend([_score_to_learn(trial, plan, one) for trial in found], args.jobs or 1)
    return found, unexpected


def _score_to_learn(trial: Trial, plan: SearchPlan, one: Round) -> float | None:
    """The score of a trial; the lowest if its numbers were not finite, so that others avoid it."""
    if trial.score is None:
        tasks = (t for of_seed in plan.tasks(trial.number, one.epochs) for t in of_seed)
        return 0.0 if any(_diverged(task.workdir) for task in tasks) else None
    return trial.score


def _train_trials(
    args: argparse.Namespace,
    argv: Sequence[str],
    plan: SearchPlan,
    chosen: Sequence[int],
    one: Round,
    said: str,
    *,
    root: Path,
    console: SafeConsole,
) -> tuple[list[Trial], bool]:
    """Trains trials as long as a round says, unless only the table or their states are wanted.

    Returns:
        Their results, and True if a training failed for another reason than numbers that are not
        finite.
    """
    planned = {trial: plan.tasks(trial, one.epochs) for trial in chosen}
    tasks = _once(t for seeds in planned.values() for of_seed in seeds for t in of_seed)
    for task in tasks:
        refuse_other_data(task)
    if args.status:
        show_states(tasks, console)
    elif not args.only_table:
        console.print(said)
        _train(args, argv, tasks, root, console)
    measure = choice.METRICS[args.metric]
    results = [_result(trial, plan.trials[trial], one, planned[trial], measure) for trial in chosen]
    failed = [task for task in tasks if failure(task.workdir)]
    return results, any(not _diverged(task.workdir) for task in failed)


def _result(
    number: int,
    values: Mapping[str, str],
    reached: Round,
    planned: Sequence[Sequence[Task]],
    measure: Measure,
) -> Trial:
    """Reads the numbers of a trial in a round; it has none unless those of all seeds are there."""
    summaries = [of_seed[-1].summary for of_seed in planned]
    found = [None if summary is None else measure.of(summary) for summary in summaries]
    scores = {seed: value for seed, value in enumerate(found) if value is not None}
    return Trial(
        number,
        values,
        reached,
        scores if len(scores) == len(planned) else {},
        tuple(str(of_seed[-1].workdir) for of_seed in planned),
        any(failure(task.workdir) is not None for of_seed in planned for task in of_seed),
    )


def _train(
    args: argparse.Namespace,
    argv: Sequence[str],
    tasks: Sequence[Task],
    root: Path,
    console: SafeConsole,
) -> None:
    """Trains what is not done and has not diverged before."""
    gone = {task.workdir for task in tasks if _diverged(task.workdir)}
    left = [
        task
        for task in tasks
        if task.workdir not in gone and not any(run in gone for run in task.starts_from)
    ]
    for task in tasks:
        if task not in left:
            console.print(f"{task.name}: has failed before, its numbers were not finite")
    engine.train(left, args, argv, program=COMMAND, root=root, console=console)


def _diverged(workdir: Path) -> bool:
    record = failure(workdir)
    return record is not None and record.get("exit_code") == NonFiniteError.exit_code


def _once(tasks: Iterable[Task]) -> list[Task]:
    return list({task.workdir: task for task in tasks}.values())


def _command(plan: SearchPlan, best: Trial, root: Path) -> str:
    """The command line that trains the best trial at full length, on all images if it can."""
    arguments, fields = plan.given(best.number)
    config = plan.config_of(best.number, plan.rounds[-1].epochs)
    # The command may run on a machine with more devices.
    config.num_devices = 1
    for phase in config.phases.values():
        # Only the data are in question; a method may need the network of another run.
        phase.methods = ("erm",)
    fields = [*plan.fields, *fields]
    try:
        build(config)
    except NothingToMeasureError:
        folds = plan.searching(best.number, plan.rounds[-1].epochs)[0].data.folds
        fields += [f"--config.data.folds={folds}"]
    return tuned.command_line(plan.config, arguments, fields, root / "best")


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
