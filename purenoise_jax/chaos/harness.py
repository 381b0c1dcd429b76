"""The harness of fault injection: a folder, a fork server and undisturbed reference runs."""

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from purenoise_jax.chaos.process_control import ForkServer, Subject
from purenoise_jax.chaos.run_spec import RunSpec
from purenoise_jax.chaos.scenarios import SCENARIOS, Scenario
from purenoise_jax.runtime.files import read_json
from purenoise_jax.training.metric_writer import read_metrics

T = TypeVar("T")
S = TypeVar("S")
# The only fields of metrics.jsonl in which two runs of the same config may differ.
TIMING = ("train/images_per_second",)
# Time to trace all programs and to read them from the cache.
COMPILED_SECONDS = 0.8


@dataclasses.dataclass(frozen=True)
class Reference:
    """An undisturbed reference run.

    Attributes:
        workdir: its workdir.
        digest: digest of its last state.
        records: records of metrics.jsonl, without times.
        seconds: from the start of compilation to the end, with all programs in the cache.
    """

    workdir: Path
    digest: str
    records: list[dict[str, Any]]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Result:
    """Outcome of one kind of fault; a row of the table.

    Attributes:
        what: the fault.
        times: number of injections.
        survived: injections after which every invariant held.
        told: the outcome in words.
        numbers: JSON values, by name.
        broken: violated invariants, a line each.
        skipped: reason why the fault cannot be injected here; "" if it was.
    """

    what: str
    times: int = 0
    survived: int = 0
    told: str = ""
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    broken: tuple[str, ...] = ()
    skipped: str = ""


class Harness:
    """Starts subject processes and compares their runs with undisturbed reference runs.

    Args:
        folder: an existing, empty folder.
        cache: folder of compiled programs.
        seed: seed of all random choices.
        jobs: number of faults injected at a time.
        advance: called after each injection.
        keep: also keep the runs whose invariants held.
        scenarios: the runs into which faults are injected.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        seed: int,
        jobs: int,
        advance: Callable[[], None] = lambda: None,
        keep: bool = False,
        scenarios: Sequence[Scenario] = SCENARIOS,
    ) -> None:
        self.folder, self.seed, self.jobs, self.advance = folder, seed, jobs, advance
        self.scenarios = scenarios
        self.references: dict[str, Reference] = {}
        self._cache, self._keep = cache, keep
        self._numbers = itertools.count()
        self._servers: list[ForkServer] = []
        (folder / "told").mkdir()
        self.server = self.new_server()

    def new_server(self, mounts: dict[str, int] | None = None) -> ForkServer:
        """Starts another fork server, which is closed with the harness.

        Raises:
            Refused: the fork server may not mount file systems.
        """
        server = ForkServer(self.folder / f"forkserver{len(self._servers)}.log", mounts)
        self._servers.append(server)
        return server

    def new_folder(self, name: str) -> Path:
        """A path for a workdir that does not exist yet."""
        return self.folder / f"{name}-{next(self._numbers)}"

    def start(
        self,
        scenario: Scenario,
        workdir: Path,
        *,
        server: ForkServer | None = None,
        task: str = "train",
        **more: Any,
    ) -> Subject:
        """Starts a subject process.

        Args:
            scenario: the run that it trains.
            workdir: workdir of the run.
            server: fork server that starts it; None = `self.server`.
            task: as in `RunSpec`.
            **more: other fields of `RunSpec`.
        """
        output = self.folder / "told" / f"{next(self._numbers)}-{workdir.name}"
        spec = RunSpec(
            task,
            scenario.name,
            str(workdir),
            f"{output}.jsonl",
            f"{output}.log",
            str(self._cache),
            **more,
        )
        return (server or self.server).start(spec)

    def make_references(self) -> None:
        """Runs each scenario undisturbed, which also fills the compilation cache.

        Raises:
            Hung: a reference run does not end.
            RuntimeError: a reference run fails, so that there is nothing to compare with.
        """

        def run(scenario: Scenario) -> tuple[str, Reference]:
            workdir = self.folder / f"undisturbed-{scenario.name}"
            subject = self.start(scenario, workdir)
            if subject.wait(600) != 0:
                raise RuntimeError(
                    f"an undisturbed run ended with exit code {subject.code}: {subject.last_line()}"
                )
            self.advance()
            seconds = COMPILED_SECONDS + _seconds_beside_compiling(subject)
            return scenario.name, Reference(workdir, digest(workdir), records(workdir), seconds)

        self.references.update(self.at_once(run, self.scenarios))

    def at_once(self, work: Callable[[S], T], items: Iterable[S]) -> list[T]:
        """Calls a function for each item, `self.jobs` at a time.

        Args:
            work: the function, which runs on a thread.
            items: its arguments.

        Returns:
            The results, in the same order.
        """
        # Not a `with` statement: after Ctrl-C that would wait for all of them.
        pool = ThreadPoolExecutor(self.jobs)
        try:
            futures = [pool.submit(work, item) for item in items]
            while True:
                # With a timeout, because Python handles Ctrl-C only between waits.
                done, waiting = wait(futures, 0.2, FIRST_EXCEPTION)
                if not waiting or any(future.exception() for future in done):
                    return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def done(self, workdir: Path, problems: Sequence[str]) -> None:
        """Reports one more injection as done and removes its run if nothing went wrong."""
        if not problems:
            self.remove(workdir)
        self.advance()

    def remove(self, workdir: Path) -> None:
        """Removes a run that is no longer needed, to save disk space."""
        if not self._keep:
            shutil.rmtree(workdir, ignore_errors=True)

    def close(self) -> None:
        """Ends all subject processes."""
        for server in self._servers:
            server.close()


def _seconds_beside_compiling(subject: Subject) -> float:
    """Seconds from the first compilation to the end, without those spent compiling."""
    said = [(at, value) for at, kind, value in subject.events() if kind == "doing"]
    said = said[[value for _, value in said].index("compiling") :]
    ends = [*(at for at, _ in said[1:]), subject.died_at]
    return sum(
        end - at for (at, value), end in zip(said, ends, strict=True) if value != "compiling"
    )


def digest(workdir: Path) -> str:
    """Reads the digest of a finished run's last state; "" if the run is not finished."""
    try:
        return str(read_json(workdir / "summary.json")["state_digest"])
    except (OSError, ValueError, LookupError):
        return ""


def records(workdir: Path) -> list[dict[str, Any]]:
    """Reads the records of metrics.jsonl, without times."""
    found = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k not in TIMING} for record in found]


def differences(workdir: Path, reference: Reference) -> list[str]:
    """Lists how a finished run differs from its undisturbed reference run."""
    found = []
    if digest(workdir) != reference.digest:
        found.append("its last state differs from that of the undisturbed run")
    if records(workdir) != reference.records:
        found.append("its metrics.jsonl differs from that of the undisturbed run")
    return found


def first_lines(problems: Sequence[str], most: int = 5) -> tuple[str, ...]:
    """The first few problems and the number of the others."""
    rest = len(problems) - most
    return (*problems[:most], *((f"and {rest} more",) if rest > 0 else ()))
