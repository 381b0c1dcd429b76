"""Checkpoints of a run: written by orbax, numbered by completed steps.

Each holds the four pytrees of `TrainState` and a JSON record that says which run it is of. Which
one a run starts from is decided in `resume.py`: its own newest, else `init_from`, else none.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from purenoise_jax.errors import CheckpointError

FOLDER = "checkpoints"
TRASH = "trash"


class Checkpoints:
    """The checkpoints under one workdir.

    Args:
      workdir: of the run.
      keep: how many rolling checkpoints survive.
      named: steps whose checkpoints are never pruned.
      read_only: change nothing in the folder; it is another run's.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        keep: int = 1,
        named: Sequence[int] = (),
        read_only: bool = False,
    ) -> None:
        self.folder = Path(workdir).resolve() / FOLDER
        self._keep, self._named, self._read_only = keep, named, read_only
        self._manager: ocp.CheckpointManager | None = None

    def steps(self) -> list[int]:
        """Completed steps of every checkpoint, ascending."""
        return sorted(self._open().all_steps()) if self.folder.is_dir() else []

    def save(self, state: Any, record: Mapping[str, Any]) -> None:
        """Saves a state under its step and prunes; returns when it is on disk.

        Args:
          state: `TrainState`.
          record: JSON values that say which run this is of.

        Raises:
          CheckpointError: orbax did not write it.
        """
        step = int(state.step)
        manager = self._open()
        if step in manager.all_steps():
            return
        try:
            # Orbax skips in silence a step at or below its latest.
            saved = manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    record=ocp.args.JsonSave({**record, "leaves": describe(state)}),
                ),
            )
        except Exception as error:
            raise CheckpointError(
                f"{self.folder / str(step)}: could not be written: {_first_line(error)}"
            ) from error
        if not saved:
            raise CheckpointError(
                f"{self.folder / str(step)}: not written, as there are {manager.all_steps()}"
            )

    def record(self, step: int) -> dict[str, Any]:
        """The JSON record of a checkpoint.

        Raises:
          CheckpointError: there is none, or it cannot be read.
        """
        if step not in self.steps():
            raise CheckpointError(
                f"{self.folder}: no checkpoint of step {step}; there are {self.steps() or 'none'}"
            )
        return self._restore(step, record=ocp.args.JsonRestore())["record"]

    def restore(self, step: int, target: Any) -> Any:
        """Reads a state.

        Args:
          step: one of `steps()`.
          target: a `TrainState` of `jax.ShapeDtypeStruct` with shardings; what is read has exactly
            its structure, shapes and dtypes.

        Raises:
          CheckpointError: there is none, it is of another shape, or it cannot be read.
        """
        there = self.record(step)["leaves"]
        wanted = describe(target)
        differing = [k for k in {**wanted, **there} if wanted.get(k) != there.get(k)]
        if differing:
            first = "; ".join(
                f"{k}: {there.get(k, 'absent')} there, {wanted.get(k, 'absent')} here"
                for k in differing[:3]
            )
            raise CheckpointError(
                f"{self.folder / str(step)} is of another model or optimiser, "
                f"{len(differing)} arrays differ: {first}"
            )
        return self._restore(step, state=ocp.args.StandardRestore(target))["state"]

    def close(self) -> None:
        """Lets go of the folder."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._open().restore(step, args=ocp.args.Composite(**items))
        except Exception as error:
            raise CheckpointError(
                f"{self.folder / str(step)}: cannot be read: {_first_line(error)}; remove this "
                "folder to go on from an older one"
            ) from error

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            if jax.process_index() == 0 and not self._read_only:
                # What an earlier run had pruned but not yet deleted when it ended.
                shutil.rmtree(self.folder / TRASH, ignore_errors=True)
            policies = checkpoint_managers
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [policies.LatestN(self._keep), policies.CustomSteps(list(self._named))]
                ),
                # A deleted step is renamed first: half of one must never be listed.
                todelete_subdir=None if self._read_only else TRASH,
                cleanup_tmp_directories=not self._read_only,
                read_only=self._read_only,
                create=not self._read_only,
                save_interval_steps=0 if self._read_only else 1,
                # A save that runs on in the background is lost when the process ends, and reports
                # its failure one save late.
                enable_async_checkpointing=False,
            )
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=options,
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(),
                    "record": ocp.JsonCheckpointHandler(),
                },
            )
        return self._manager


def describe(state: Any) -> dict[str, str]:
    """Path of every array -> its dtype and shape, such as "float32[3, 3, 3, 16]"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def check_same(there: Mapping[str, Any], here: Mapping[str, Any], where: str) -> None:
    """Compares what two runs say of themselves.

    Args:
      there: of the checkpoint.
      here: of this run.
      where: names the checkpoint in the message.

    Raises:
      CheckpointError: naming every entry that differs.
    """
    here = json.loads(json.dumps(here))
    differing = [key for key in here if there.get(key) != here[key]]
    if differing:
        parts = "; ".join(
            f"{key}: {_short(there.get(key))} there, {_short(here[key])} here" for key in differing
        )
        raise CheckpointError(f"{where} is of another run: {parts}")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
