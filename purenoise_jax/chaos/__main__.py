"""The command line of fault injection.

python -m purenoise_jax.chaos
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import jax

from purenoise_jax.chaos import (
    concurrency_faults,
    config_faults,
    corruption_faults,
    crash_faults,
    resource_faults,
    signals,
)
from purenoise_jax.chaos.harness import Harness, Result
from purenoise_jax.chaos.invalid_configs import field_paths
from purenoise_jax.chaos.process_control import Hung, Refused
from purenoise_jax.chaos.progress import Shown
from purenoise_jax.chaos.scenarios import QUICK_SCENARIOS, SCENARIOS
from purenoise_jax.chaos.table import WIDTH, show
from purenoise_jax.runtime.console import SafeConsole, duration, show_error, show_traceback
from purenoise_jax.runtime.errors import ConfigError, StorageError, unknown
from purenoise_jax.runtime.exit_codes import Parser, run_command
from purenoise_jax.runtime.paths import expand
from purenoise_jax.runtime.threads import exit_process

HELD, BROKEN = 0, 1
MOST_JOBS = 4


@dataclasses.dataclass(frozen=True)
class FaultInjection:
    """A kind of fault that the command line offers.

    Attributes:
        inject: injects the fault that many times.
        option: command-line option for the number of times.
        default: its default.
        count: number of runs for that many times, for the progress bar.
        help: what the option counts.
    """

    inject: Callable[[Harness, int], list[Result]]
    option: str
    default: int
    help: str
    count: Callable[[int], int] = lambda times: times


FAULTS = {
    "kills": FaultInjection(crash_faults.inject, "kills", 20, "kills (SIGKILL) at random instants"),
    "signals": FaultInjection(
        signals.inject,
        "signals",
        3,
        "signals in each phase: SIGTERM, SIGUSR1 and SIGINT take turns",
        signals.count,
    ),
    "damage": FaultInjection(
        corruption_faults.inject, "damages", 100, "damaged checkpoints", corruption_faults.count
    ),
    "starve": FaultInjection(
        resource_faults.inject,
        "shortages",
        1,
        "times for each of: disk full, no room, read-only, no permission, ...",
        resource_faults.count,
    ),
    "mistakes": FaultInjection(
        config_faults.inject,
        "mistakes",
        6,
        "bad values for each config field, at most",
        lambda times: len(field_paths()),
    ),
    "races": FaultInjection(
        concurrency_faults.inject, "races", 10, "starts of several runs in one workdir"
    ),
}
EPILOG = """\
faults and their invariants, for --only:
  kills     runs are killed and restarted until they finish: no saved step is lost, and the
            finished run is bitwise equal to an undisturbed one
  signals   a signal while reading data, compiling, training, evaluating or saving: the process
            ends within 5 s, every computed step is saved, and the same command continues the run
  damage    flipped bits, lost files, links and more in checkpoints: a start uses the newest
            complete one and never restores a value that was not saved
  starve    no room, no permission: exit code 5 within 10 s, older checkpoints stay complete
  mistakes  bad values for every config field: refused in one line that names the legal values
  races     two or three runs at once in one workdir: one trains, the others exit

The runs are real: a few training steps of small networks on the CPU. They lie in a new folder,
which is removed at the end unless an invariant was violated. The full disk is a small file system
in memory; the file system of DIR is never filled up.

exit codes: 0 all invariants held, 1 one was violated, 2 usage, 5 DIR cannot be used,
130 interrupted

examples:
  python -m purenoise_jax.chaos
  python -m purenoise_jax.chaos --dir /scratch/me --kills 200 --damages 1000 --races 50
  python -m purenoise_jax.chaos --only races --races 100 --dir /nfs/home/me
"""


def parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parse = Parser(
        prog="python -m purenoise_jax.chaos",
        description="Fault injection on your own file system: kills, damages, starves and races\n"
        "small training runs in DIR and reports which invariants held. Takes about three\n"
        "minutes on two cores.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for fault in FAULTS.values():
        parse.add_argument(
            f"--{fault.option}",
            type=int,
            default=fault.default,
            metavar="N",
            help=f"{fault.help} (default: {fault.default})",
        )
    parse.add_argument("--only", default="", metavar="NAME,...", help="inject only these faults")
    parse.add_argument(
        "--dir",
        default=".",
        metavar="DIR",
        help="a folder on the file system to test (default: here)",
    )
    parse.add_argument(
        "--quick", action="store_true", help="a network of one block instead of ResNet and WRN"
    )
    parse.add_argument("--keep", action="store_true", help="do not remove the runs at the end")
    parse.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="runs at a time (default: one per core, "
        "at most 4)",
    )  # fmt: skip
    parse.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of all random choices"
    )
    parse.add_argument("--json", default="", metavar="FILE", help="write all numbers to FILE")
    parse.add_argument("--debug", action="store_true", help="show tracebacks")
    return parse


def main(argv: Sequence[str]) -> int:
    """Runs one command line, without the program's name, and returns its exit code."""
    return run_command(lambda: _chaos(argv), debug="--debug" in argv, interrupted="interrupted")


def _chaos(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    chosen = _chosen(args)
    if not hasattr(os, "fork"):
        raise ConfigError("this operating system cannot fork processes")
    console = SafeConsole()
    if not console.is_terminal:
        console = SafeConsole(width=WIDTH)
    folder, made = _make_folder(expand(args.dir, "--dir"))
    console.print(f"runs are in {folder}, on {_file_system(folder)}", soft_wrap=True)
    started = time.monotonic()
    remove = False
    try:
        with _interruptible(), Shown(console) as shown:
            results = _inject_all(args, chosen, folder, shown)
        held = not any(result.broken for result in results)
        remove = held and not args.keep
        seconds = time.monotonic() - started
        if args.json:
            report = {
                "held": held,
                "seconds": seconds,
                "seed": args.seed,
                "file_system": _file_system(folder),
                "results": [dataclasses.asdict(result) for result in results],
            }
            expand(args.json, "--json").write_text(json.dumps(report, indent=2) + "\n")
        show(console, f"{_file_system(folder)}, {duration(seconds)}", results)
        if not held:
            show_error("not all invariants held")
        return HELD if held else BROKEN
    except (Hung, Refused, RuntimeError) as error:
        if args.debug:
            show_traceback()
        show_error(f"error: {error}")
        return BROKEN
    except KeyboardInterrupt:
        remove = not args.keep
        raise
    finally:
        if remove:
            shutil.rmtree(folder, ignore_errors=True)
            for path in made:
                with contextlib.suppress(OSError):
                    path.rmdir()
        else:
            console.print(f"kept: {folder}", soft_wrap=True)


def _chosen(args: argparse.Namespace) -> dict[str, int]:
    """The chosen faults and how many times to inject each."""
    for name in (*(t.option for t in FAULTS.values()), "jobs", "seed"):
        if getattr(args, name) < 0:
            raise ConfigError(f"--{name}={getattr(args, name)} is not legal; legal: at least 0")
    names = args.only.split(",") if args.only else list(FAULTS)
    for name in names:
        if name not in FAULTS:
            raise unknown("--only", name, FAULTS)
    times = {name: getattr(args, FAULTS[name].option) for name in FAULTS if name in names}
    return {name: number for name, number in times.items() if number}


def _inject_all(
    args: argparse.Namespace, chosen: dict[str, int], folder: Path, shown: Shown
) -> list[Result]:
    # A cache folder from the environment is used.
    cache = Path(jax.config.values["jax_compilation_cache_dir"] or folder / "compiled")
    jobs = args.jobs or min(os.cpu_count() or 1, MOST_JOBS)
    if hasattr(os, "sched_getaffinity"):
        jobs = args.jobs or min(len(os.sched_getaffinity(0)), MOST_JOBS)
    results: list[Result] = []
    scenarios = QUICK_SCENARIOS if args.quick else SCENARIOS
    shown.begin("undisturbed", len(scenarios))
    with contextlib.closing(
        Harness(folder, cache, args.seed, jobs, shown.advance, args.keep, scenarios)
    ) as harness:
        harness.make_references()
        for name, times in chosen.items():
            shown.begin(name, FAULTS[name].count(times))
            results += FAULTS[name].inject(harness, times)
    return results


def _make_folder(where: Path) -> tuple[Path, list[Path]]:
    """Makes a new folder; also returns the parents made for it, innermost first."""
    made = [path for path in (where, *where.parents) if not path.exists()]
    try:
        where.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="chaos-", dir=where)).resolve(), made
    except OSError as error:
        raise StorageError(f"--dir={where} cannot be used: {error.strerror}") from error


def _file_system(folder: Path) -> str:
    """The type and mount point, if the operating system lists them."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return f"the file system of {folder}"
    mounts = [(line.split()[1], line.split()[2]) for line in lines]
    found = [m for m in mounts if folder.is_relative_to(m[0])]
    # Of several mounts at one point, the last one is visible.
    where, kind = max(reversed(found), key=lambda m: len(m[0]))
    return f"{kind} at {where}"


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Treats SIGTERM like Ctrl-C, so that all subject processes are ended too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


if __name__ == "__main__":
    exit_process(main(sys.argv[1:]))
