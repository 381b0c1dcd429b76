"""What all torments share: a folder, somebody to start subjects, and runs that nothing befell."""

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from purenoise_jax.chaos.process_control import ForkServer, Subject
from purenoise_jax.chaos.run_spec import RunSpec
from purenoise_jax.chaos.scenarios import CASES, Scenario
from purenoise_jax.runtime.files import read_json
from purenoise_jax.training.metric_writer import read_metrics

T = TypeVar("T")
S = TypeVar("S")
# Of a record of metrics.jsonl; the only ones that two runs of the same config may differ in.
TIMING = ("train/images_per_second",)
# What it takes to trace programs and to read them from the cache.
COMPILED_SECONDS = 0.8


@dataclasses.dataclass(frozen=True)
class Reference:
    """A run that nothing befell.

    Attributes:
        workdir: of it.
        digest: of its last state.
        records: of metrics.jsonl, without times.
        seconds: from the start of compilation to the end, with all programs in the cache.
    """

    workdir: Path
    digest: str
    records: list[dict[str, Any]]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of the runs that one inject was about.

    Attributes:
        what: was done to them.
        times: how often.
        survived: how often all was as promised.
        told: in words, what it cost.
        numbers: JSON values, by name.
        broken: promises that did not hold, a line each.
        skipped: why it could not be done here; "" if it was.
    """

    what: str
    times: int = 0
    survived: int = 0
    told: str = ""
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    broken: tuple[str, ...] = ()
    skipped: str = ""


class Harness:
    """Where torments take place.

    Args:
        folder: exists, and is ours alone.
        cache: folder of compiled programs.
        seed: of all random choices.
        jobs: how many subjects are tormented at a time.
        advance: told whenever another one is done.
        keep: leave the runs that went well, too.
        cases: the runs that are tormented.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        seed: int,
        jobs: int,
        advance: Callable[[], None] = lambda: None,
        keep: bool = False,
        cases: Sequence[Scenario] = CASES,
    ) -> None:
        self.folder, self.seed, self.jobs, self.advance = folder, seed, jobs, advance
        self.cases = cases
        self.references: dict[str, Reference] = {}
        self._cache, self._keep = cache, keep
        self._numbers = itertools.count()
        self._servers: list[ForkServer] = []
        (folder / "told").mkdir()
        self.server = self.new_server()

    def new_server(self, mounts: dict[str, int] | None = None) -> ForkServer:
        """Another fork server, which is closed with the harness.

        Raises:
            Refused: it may not mount.
        """
        server = ForkServer(self.folder / f"forkserver{len(self._servers)}.log", mounts)
        self._servers.append(server)
        return server

    def new_folder(self, name: str) -> Path:
        """A path that is not taken, for a workdir."""
        return self.folder / f"{name}-{next(self._numbers)}"

    def start(
        self,
        case: Scenario,
        workdir: Path,
        *,
        server: ForkServer | None = None,
        task: str = "train",
        **more: Any,
    ) -> Subject:
        """Starts a subject.

        Args:
            case: what it trains.
            workdir: of the run.
            server: that forks it; None = the usual one.
            task: see `RunSpec`.
            **more: likewise.
        """
        told = self.folder / "told" / f"{next(self._numbers)}-{workdir.name}"
        order = RunSpec(
            task, case.name, str(workdir), f"{told}.jsonl", f"{told}.log", str(self._cache), **more
        )
        return (server or self.server).start(order)

    def make_references(self) -> None:
        """Runs each case through, which leaves its programs in the cache.

        Raises:
            Hung: one does not end.
            RuntimeError: one fails, so that nothing can be said of those that something befalls.
        """

        def run(case: Scenario) -> tuple[str, Reference]:
            workdir = self.folder / f"undisturbed-{case.name}"
            subject = self.start(case, workdir)
            if subject.wait(600) != 0:
                raise RuntimeError(
                    f"a run that nothing befell ended with {subject.code}: {subject.last_line()}"
                )
            self.advance()
            seconds = COMPILED_SECONDS + _seconds_beside_compiling(subject)
            return case.name, Reference(workdir, digest(workdir), records(workdir), seconds)

        self.references.update(self.at_once(run, self.cases))

    def at_once(self, work: Callable[[S], T], items: Iterable[S]) -> list[T]:
        """Does something for each of many, several at a time.

        Args:
            work: to be done, on a thread.
            items: each is its argument once.

        Returns:
            What it returned, in the same order.
        """
        # No `with`: it would wait for all of them after Ctrl-C.
        pool = ThreadPoolExecutor(self.jobs)
        try:
            futures = [pool.submit(work, item) for item in items]
            while True:
                # Not for ever, or Ctrl-C would not be heard.
                done, waiting = wait(futures, 0.2, FIRST_EXCEPTION)
                if not waiting or any(future.exception() for future in done):
                    return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def done(self, workdir: Path, problems: Sequence[str]) -> None:
        """One more is done; its run is removed, unless it shows what went wrong."""
        if not problems:
            self.remove(workdir)
        self.advance()

    def remove(self, workdir: Path) -> None:
        """Removes a run that is not needed any more, as there may be many."""
        if not self._keep:
            shutil.rmtree(workdir, ignore_errors=True)

    def close(self) -> None:
        """Ends all subjects."""
        for server in self._servers:
            server.close()


def _seconds_beside_compiling(subject: Subject) -> float:
    """How long it was at something else, from the first time it compiled to its end."""
    said = [(at, value) for at, kind, value in subject.events() if kind == "doing"]
    said = said[[value for _, value in said].index("compiling") :]
    ends = [*(at for at, _ in said[1:]), subject.died_at]
    return sum(
        end - at for (at, value), end in zip(said, ends, strict=True) if value != "compiling"
    )


def digest(workdir: Path) -> str:
    """Of the last state, as the run says at its end; "" if it does not."""
    try:
        return str(read_json(workdir / "summary.json")["state_digest"])
    except (OSError, ValueError, LookupError):
        return ""


def records(workdir: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl says of each epoch, without times."""
    found = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in record.items() if k not in TIMING} for record in found]


def differences(workdir: Path, reference: Reference) -> list[str]:
    """In what a finished run differs from one that nothing befell."""
    found = []
    if digest(workdir) != reference.digest:
        found.append("its last state is another one than without")
    if records(workdir) != reference.records:
        found.append("its metrics.jsonl says something else than without")
    return found


def first_lines(problems: Sequence[str], most: int = 5) -> tuple[str, ...]:
    """The first few of many, and how many there are more."""
    rest = len(problems) - most
    return (*problems[:most], *((f"and {rest} more",) if rest > 0 else ()))
