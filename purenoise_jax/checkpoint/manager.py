"""Checkpoints of a run: written by orbax, committed with a manifest, numbered by completed steps.

Each holds the collections of a train state (parameters, statistics and the like, each a pytree) and
a JSON record that identifies its run. `training/resume.py` decides which checkpoint a run starts
from: its own newest, otherwise that of `init_from`, otherwise none.

A checkpoint is written to staging/, committed (see `manifest`) and only then renamed to its step.
So every numbered folder was complete once, and it counts only as long as it matches its manifest.
No checkpoint is deleted before its replacement is complete, and each is renamed before it is
deleted.
"""

import contextlib
import dataclasses
import itertools
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from purenoise_jax.checkpoint import manifest
from purenoise_jax.checkpoint.tree_names import by_name, collections, describe, name_of_format_1
from purenoise_jax.runtime.errors import CheckpointError, StorageError, shown
from purenoise_jax.runtime.files import read_json

FOLDER = "checkpoints"
STAGING, TRASH, QUARANTINE = "staging", "trash", "quarantine"
STATE, RECORD = "state", "record.json"
# Format of a step's folder; a record without a number has format 1. On disk the two differ only in
# the names of arrays in the record: ".params['head']" in format 1, "params/head" in 2. Collections
# without arrays are left out, so that a new one makes no older checkpoint unreadable.
FORMAT = 2


class Checkpoints:
    """The checkpoints under one workdir.

    Args:
        workdir: of the run.
        keep: number of rolling checkpoints that are kept.
        keep_steps: steps whose checkpoints are never pruned.
        keeps_best: beside these, the best checkpoint is kept, see `save`.

    Only `prepare`, `save` and `quarantine` change files; they require the workdir lock.

    Attributes:
        folder: of the checkpoints.
        passed_over: step -> its damage, for the damaged steps that `newest` found.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        keep: int = 1,
        keep_steps: Sequence[int] = (),
        keeps_best: bool = False,
    ) -> None:
        self.folder = Path(workdir).resolve() / FOLDER
        self.passed_over: dict[int, str] = {}
        self._keep, self._keep_steps, self._keeps_best = keep, set(keep_steps), keeps_best
        self._best: int | None = None
        # Tracked here because processes may see directory listings at different times.
        self._complete_steps: set[int] = set()
        self._orbax = ocp.Checkpointer(ocp.StandardCheckpointHandler())
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._committing: tuple[int, Future[None]] | None = None

    def steps(self) -> list[int]:
        """Returns the step of every checkpoint, ascending, damaged ones included."""
        if not self.folder.is_dir():
            return []
        names = [path.name for path in self.folder.iterdir()]
        return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))

    def newest(self, set_aside: bool = False) -> int | None:
        """Returns the newest step that matches its manifest; None if nothing was ever saved.

        Args:
            set_aside: return None also if everything that was ever saved is in quarantine.

        Raises:
            CheckpointError: there are checkpoints, but none of them can be used.
            StorageError: one cannot be read, so that it may or may not be damaged.
        """
        self.passed_over = {}
        for step in reversed(self.steps()):
            try:
                damage = manifest.find_damage(self.folder / str(step))
            except OSError as error:
                raise StorageError(f"{self.folder / str(step)}: cannot be read: {error}") from error
            if damage is None:
                self._complete_steps.add(step)
                return step
            self.passed_over[step] = damage
        aside = [path.name for path in self._in(QUARANTINE) if path.name[0].isdecimal()]
        if self.passed_over:
            some = "; ".join(f"{step}: {why}" for step, why in list(self.passed_over.items())[:3])
            raise CheckpointError(
                f"{self.folder}: none of {len(self.passed_over)} checkpoints can be used ({some}); "
                "--config.fresh=True starts from scratch and sets them aside"
            )
        if aside and not set_aside:
            raise CheckpointError(
                f"{self.folder}: all checkpoints are in {QUARANTINE}/ ({', '.join(aside[:5])}); "
                "--config.fresh=True starts from scratch"
            )
        return None

    def quarantine(self, *paths: Path) -> None:
        """Moves files or folders to quarantine/, from which nothing is read or deleted.

        Raises:
            StorageError: the file system refuses.
        """
        target = self.folder / QUARANTINE
        try:
            for path in paths:
                target.mkdir(exist_ok=True)
                free = (f"{path.name}.{i}" if i else path.name for i in itertools.count())
                path.rename(next(target / name for name in free if not (target / name).exists()))
        except OSError as error:
            raise StorageError(f"{target}: {path} cannot be moved here: {error}") from error

    def still_to_come(self, step: int, last: int, without: Collection[int] = ()) -> int:
        """Returns an upper bound on the checkpoints that the run will still add to the folder.

        Args:
            step: at which the run is.
            last: its final step.
            without: steps in the folder that do not count.
        """
        present = {*self.steps()} - {*without}
        rolling = len(present - self._keep_steps)
        kept = [s for s in self._keep_steps - present if step < s <= last]
        # One more, because a checkpoint is written before another is deleted.
        most = max(self._keep - rolling, 0) + len(kept) + self._keeps_best
        return most + 1 if step < last else 0

    def prepare(self) -> None:
        """Creates the folder and removes unfinished checkpoints of killed runs.

        Raises:
            StorageError: the file system refuses.
        """
        for name in ("", STAGING, TRASH, QUARANTINE):
            folder = self.folder / name
            if folder.is_symlink():
                raise StorageError(f"{folder} is a symbolic link; legal: a folder")
            if name in ("", QUARANTINE):
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"{folder}: cannot be created: {error}") from error
            for path in self._in(name):
                _delete(path)

    def save(self, state: Any, record: Mapping[str, Any], best: int | None = None) -> None:
        """Writes a state as the checkpoint of its step.

        When this returns, the arrays are written and the state may change. A background thread then
        commits the checkpoint and prunes older steps; `wait` waits for it.

        Args:
            state: a dataclass of collections, such as `TrainState`, with the number of completed
                steps in `step`.
            record: JSON values that identify the run.
            best: step of the best checkpoint, which is not pruned before another one is the best
                and complete; None = there is none.

        Raises:
            StorageError: this checkpoint, or the one before it, could not be written.
        """
        self.wait()
        # Not before: the checkpoint before this one still keeps the best so far.
        self._best = best
        step = int(state.step)
        if step in self._complete_steps:
            return
        first = jax.process_index() == 0
        staged = self.folder / STAGING / str(step)
        try:
            if first:
                staged.mkdir(parents=True)
                text = json.dumps(
                    {"format": FORMAT, **record, "leaves": describe(state)}, allow_nan=False
                )
                # Not synced to the disk here, because the run would wait for it; the commit does.
                (staged / RECORD).write_text(text + "\n", encoding="utf-8")
            self._orbax.save(staged / STATE, args=ocp.args.StandardSave(collections(state)))
        except Exception as error:
            raise self._failure(step, error) from error
        self._complete_steps.add(step)
        if first:
            self._committing = step, self._committer.submit(self._complete, step, staged)

    def wait(self) -> None:
        """Waits until the last step saved is complete.

        Raises:
            StorageError: it could not be written.
        """
        if self._committing is not None:
            step, committed = self._committing
            self._committing = None
            try:
                committed.result()
            except Exception as error:
                raise self._failure(step, error) from error

    def check(self) -> None:
        """Raises the error of the background thread, if it has failed by now.

        Raises:
            StorageError: the last step saved could not be written.
        """
        if self._committing is not None and self._committing[1].done():
            self.wait()

    def record(self, step: int) -> dict[str, Any]:
        """Reads the JSON record of a checkpoint.

        Raises:
            CheckpointError: there is none, it is damaged, or it has a format of another version.
        """
        if step not in self.steps():
            raise CheckpointError(
                f"{self.folder}: no checkpoint of step {step}; there are {self.steps() or 'none'}"
            )
        self._refuse_damage(step, RECORD)
        try:
            record = read_json(self.folder / str(step) / RECORD, manifest.LARGEST_JSON)
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.folder / str(step)}: {RECORD}: {error}") from error
        if not (isinstance(record, dict) and isinstance(record.get("leaves"), dict)) or not (
            isinstance(record.get("epoch"), int | float)
        ):
            raise CheckpointError(f"{self.folder / str(step)}: {RECORD} is not one of ours")
        number = record.get("format", 1)
        if type(number) is not int or not 1 <= number <= FORMAT:
            raise CheckpointError(
                f"{self.folder / str(step)}: has format {shown(number)}; this version reads "
                f"1 to {FORMAT}; continue with the version of purenoise_jax that wrote it"
            )
        if number == 1:
            record["leaves"] = {name_of_format_1(k): v for k, v in record["leaves"].items()}
        return record

    def restore(self, step: int, target: Any) -> Any:
        """Reads a state from a checkpoint.

        Args:
            step: one of `steps()`.
            target: a dataclass of collections, such as `TrainState`, of `jax.ShapeDtypeStruct` with
                shardings.

        Returns:
            The target with the arrays that were read, which have exactly its shapes and dtypes.

        Raises:
            CheckpointError: there is no checkpoint, it is damaged, or its arrays have other names,
                shapes or dtypes, or numbers that are not finite.
        """
        wanted = describe(target)
        self._compare(self.record(step)["leaves"], wanted, step)
        self._refuse_damage(step)
        path = self.folder / str(step) / STATE
        try:
            # The metadata of the arrays themselves, because orbax would silently cast them.
            stored = self._orbax.metadata(path).item_metadata.tree
            self._compare(describe(stored), wanted, step)
            restored = self._orbax.restore(path, args=ocp.args.StandardRestore(collections(target)))
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"{self.folder / str(step)}: cannot be read: {_first_line(error)}"
            ) from error
        self._refuse_non_finite(restored, step)
        return dataclasses.replace(target, **restored)

    def restore_collections(self, step: int, target: Mapping[str, Any]) -> dict[str, Any]:
        """Reads some of the collections of a state.

        Args:
            step: one of `steps()`.
            target: name -> a pytree of `jax.ShapeDtypeStruct` with shardings.

        Raises:
            CheckpointError: as for `restore`, of these collections alone.
        """
        wanted = describe(target)
        recorded = {
            name: array
            for name, array in self.record(step)["leaves"].items()
            if name.partition("/")[0] in target
        }
        self._compare(recorded, wanted, step)
        self._refuse_damage(step)
        arguments = jax.tree.map(
            lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), dict(target)
        )
        reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        try:
            restored: dict[str, Any] = reader.restore(
                self.folder / str(step) / STATE,
                args=ocp.args.PyTreeRestore(
                    item=dict(target), restore_args=arguments, partial_restore=True
                ),
            )
        except Exception as error:
            raise CheckpointError(
                f"{self.folder / str(step)}: cannot be read: {_first_line(error)}"
            ) from error
        finally:
            reader.close()
        self._refuse_non_finite(restored, step)
        return restored

    def close(self) -> None:
        """Waits until the last step saved is complete, and releases all resources."""
        self._committer.shutdown()
        self._orbax.close()

    def _complete(self, step: int, staged: Path) -> None:
        manifest.commit(staged)
        staged.rename(self.folder / str(step))
        manifest.sync_folder(self.folder)
        # Higher steps belong to another run and must not count as kept.
        ours = [other for other in self.steps() if other <= step]
        for old in prunable(ours, self._keep, {*self._keep_steps, self._best}):
            # Renamed first, so that a half-deleted step is never listed.
            trashed = self.folder / TRASH / str(old)
            (self.folder / str(old)).rename(trashed)
            _delete(trashed)

    def _refuse_non_finite(self, restored: Any, step: int) -> None:
        for name, leaf in by_name(restored).items():
            if not np.isfinite(np.asarray(leaf.addressable_data(0))).all():
                raise CheckpointError(f"{self.folder / str(step)}: {name} is not finite")

    def _refuse_damage(self, step: int, only: str | None = None) -> None:
        damage = manifest.find_damage(self.folder / str(step), only)
        if damage is not None:
            raise CheckpointError(f"{self.folder / str(step)}: {damage}")

    def _compare(self, found: Mapping[str, str], wanted: Mapping[str, str], step: int) -> None:
        differing = [k for k in {**wanted, **found} if wanted.get(k) != found.get(k)]
        if differing:
            first = "; ".join(
                f"{k}: {found.get(k, 'absent')} there, {wanted.get(k, 'absent')} here"
                for k in differing[:3]
            )
            raise CheckpointError(
                f"{self.folder / str(step)} is of another model or optimiser, "
                f"{len(differing)} arrays differ: {first}"
            )

    def _failure(self, step: int, error: Exception) -> StorageError:
        _delete(self.folder / STAGING / str(step))
        self._complete_steps.discard(step)
        complete = [str(s) for s in self.steps()]
        return StorageError(
            f"{self.folder / str(step)}: could not be written: {_first_line(error)}; "
            + (
                f"the checkpoint of step {complete[-1]} is complete"
                if complete
                else "there is no other checkpoint"
            )
        )

    def _in(self, name: str) -> list[Path]:
        folder = self.folder / name
        return sorted(folder.iterdir()) if folder.is_dir() else []


def prunable(steps: Sequence[int], keep: int, keep_steps: Collection[int | None]) -> list[int]:
    """Returns the steps that may be deleted.

    Args:
        steps: of all checkpoints, ascending.
        keep: number of the newest that are kept, at least 1.
        keep_steps: steps that are kept for good.
    """
    return [step for step in steps[:-keep] if step not in keep_steps]


def _delete(path: Path) -> None:
    """Deletes a folder or a link; the next start deletes what cannot be deleted now."""
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
