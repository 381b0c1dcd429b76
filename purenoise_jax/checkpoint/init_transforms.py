"""Init transforms: make a checkpoint or a file of weights the first state of a run; reset parts.

A phase without noise never touches the auxiliary layers, so a checkpoint of plain training is the
same for all norms; only the parameters and statistics of the noise rows are missing from it. Plain
training has no projector either.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from purenoise_jax.checkpoint.manager import Checkpoints
from purenoise_jax.checkpoint.tree_names import by_name, collections
from purenoise_jax.models.heads import CLASS_SCALE
from purenoise_jax.models.norm import AUX_PREFIX
from purenoise_jax.models.projectors import PROJECTOR

# Parts of the state that a phase may reset at its start.
RESETS = ("head", "opt_state")


def reset(state: Any, initial: Any, names: Collection[str]) -> Any:
    """Resets parts of a state to their values before the first step.

    Args:
        state: a dataclass of collections, such as `TrainState`.
        initial: a state of the same structure, before its first step.
        names: of `RESETS`. "head" is the classifier with everything that belongs to it, such as its
            momentum; "opt_state" is the entire state of the optimiser.
    """

    def is_reset(name: str) -> bool:
        parts = name.split("/")
        return any(part in parts if part == "head" else part == parts[0] for part in names)

    first = by_name(initial)
    leaves = [first[name] if is_reset(name) else leaf for name, leaf in by_name(state).items()]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


def reset_memories(state: Any, names: Collection[str]) -> set[str]:
    """Returns the names of memories that hold a classifier, if `reset` resets it: they begin anew.

    Args:
        state: `TrainState`.
        names: of `RESETS`.
    """
    if "head" not in names:
        return set()
    return {
        memory
        for memory, tree in state.extra.items()
        if any("head" in name.split("/") for name in by_name(tree))
    }


@dataclasses.dataclass(frozen=True)
class InitTransform:
    """Makes the first state of a run from a checkpoint of another run that lacks a part of it.

    Attributes:
        applies: (names of the checkpoint's arrays, target) -> True if the part is missing.
        without: (target) -> the target without that part, which can be read.
        add: (state without the part, state before the first step) -> the state with it. Both lack
            the parts that are still to be added.
    """

    applies: Callable[[Collection[str], Any], bool]
    without: Callable[[Any], Any]
    add: Callable[[Any, Any], Any]


def aux_norm(how: str) -> InitTransform:
    """Returns the transform that adds auxiliary layers; `how` is that of `add_aux_norm`."""

    def applies(leaves: Collection[str], target: Any) -> bool:
        return any(map(_is_aux, by_name(target))) and not any(map(_is_aux, leaves))

    return InitTransform(applies, without_aux_norm, partial(add_aux_norm, how=how))


def class_scale() -> InitTransform:
    """Returns the transform that adds the scales of a scaled head to a linear one, as 1."""

    def applies(leaves: Collection[str], target: Any) -> bool:
        return any(map(_is_scale, by_name(target))) and not any(map(_is_scale, leaves))

    def add(state: Any, initial: Any) -> Any:
        present, wanted = by_name(state), by_name(initial)
        leaves = [leaf if _is_scale(name) else present[name] for name, leaf in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(initial), leaves)

    return InitTransform(applies, partial(without_names, absent=_is_scale), add)


def new_projector() -> InitTransform:
    """Returns the transform that adds a projector, with its parameters before the first step."""

    def applies(leaves: Collection[str], target: Any) -> bool:
        return any(map(_is_projector, by_name(target))) and not any(map(_is_projector, leaves))

    def add(state: Any, initial: Any) -> Any:
        present, wanted = by_name(state), by_name(initial)
        leaves = [leaf if _is_projector(name) else present[name] for name, leaf in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(initial), leaves)

    return InitTransform(
        applies, partial(without_names, absent=lambda name: name == PROJECTOR), add
    )


def new_memory(memory: Mapping[str, Callable[[Any], Any]]) -> InitTransform:
    """Returns the transform that adds memories of methods, made from the variables that were read.

    An example is a moving average of the parameters.

    Args:
        memory: name -> (variables {"params", "batch_stats"}) -> its tree before the first step.
    """

    def applies(leaves: Collection[str], target: Any) -> bool:
        return bool(target.extra) and not any(name.startswith("extra/") for name in leaves)

    def without(target: Any) -> Any:
        return dataclasses.replace(target, extra={})

    def add(state: Any, initial: Any) -> Any:
        del initial
        return begin_memories(state, memory)

    return InitTransform(applies, without, add)


@dataclasses.dataclass(frozen=True)
class ImportedWeights:
    """Weights of a file, with which a run starts instead of with random parameters.

    Attributes:
        arrays: name, such as "params/conv0/kernel" -> array on the host. What is not among them
            keeps its value before the first step.
        aux: start of auxiliary layers, which the file lacks: `how` of `add_aux_norm`.
        note: the file and the start of the head, in words.
    """

    arrays: Mapping[str, Any]
    aux: str = "fresh"
    note: str = ""

    def into(
        self,
        initial: Any,
        place: Callable[[Any], jax.Array],
        memory: Mapping[str, Callable[[Any], Any]],
    ) -> Any:
        """Returns a state before the first step with the weights, and memories made from them.

        Args:
            initial: `TrainState` with random parameters. The state of an optimiser does not depend
                on them.
            place: (array) -> the same on all devices, a new one with every call.
            memory: as that of `new_memory`.
        """

        def leaf(name: str, first: Any) -> Any:
            copied = _is_aux(name) and self.aux == "copy"
            source = name.replace(f"/{AUX_PREFIX}", "/") if copied else name
            return place(self.arrays[source]) if source in self.arrays else first

        leaves = [leaf(name, first) for name, first in by_name(initial).items()]
        state = jax.tree.unflatten(jax.tree.structure(initial), leaves)
        return begin_memories(state, memory)


def begin_memories(state: Any, memory: Mapping[str, Callable[[Any], Any]]) -> Any:
    """Returns a state whose memories of these names are made from its variables.

    Args:
        state: `TrainState`.
        memory: as that of `new_memory`.
    """
    if not memory:
        return state
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    # Under jit the new arrays get the sharding of the variables, on all devices.
    make = jax.jit(lambda variables: {name: init(variables) for name, init in memory.items()})
    return dataclasses.replace(state, extra={**state.extra, **make(variables)})


def read_transformed(
    checkpoints: Checkpoints,
    step: int,
    target: Any,
    initial: Callable[[], Any],
    transforms: Sequence[InitTransform],
) -> Any:
    """Reads a checkpoint of another run as the first state of this one.

    Args:
        checkpoints: of the other run.
        step: one of its steps.
        target: shapes, dtypes and shardings of the state, see `Checkpoints.restore`.
        initial: builds the state before the first step; called only if a part is missing.
        transforms: applied in order, each only if it `applies`.

    Raises:
        CheckpointError: see `Checkpoints.restore`.
    """
    leaves = checkpoints.record(step)["leaves"]
    used = [transform for transform in transforms if transform.applies(leaves, target)]
    for transform in used:
        target = transform.without(target)
    wanted = collections(target)
    if {name.partition("/")[0] for name in leaves} - wanted.keys() == {"extra"}:
        # The checkpoint has memories of methods that this run does not use.
        state = dataclasses.replace(target, **checkpoints.restore_collections(step, wanted))
    else:
        state = checkpoints.restore(step, target)
    for i, transform in reversed(list(enumerate(used))):
        first = initial()
        for missing in used[:i]:
            first = missing.without(first)
        state = transform.add(state, first)
    return state


def without_aux_norm(tree: Any) -> Any:
    """Returns a tree of dicts, tuples and dataclasses without the entries of auxiliary layers."""
    return without_names(tree, lambda name: name.startswith(AUX_PREFIX))


def without_names(tree: Any, absent: Callable[[str], bool]) -> Any:
    """Returns a tree of dicts, tuples and dataclasses without some entries of its dicts.

    Args:
        tree: such as a `TrainState`.
        absent: (name of an entry) -> True if it is left out.
    """
    if isinstance(tree, Mapping):
        kept = {name: child for name, child in tree.items() if not absent(name)}
        return {name: without_names(child, absent) for name, child in kept.items()}
    if isinstance(tree, tuple):
        children = [without_names(child, absent) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, jax.ShapeDtypeStruct | type):
        fields = {
            f.name: without_names(getattr(tree, f.name), absent) for f in dataclasses.fields(tree)
        }
        return dataclasses.replace(tree, **fields)
    return tree


def add_aux_norm(state: Any, initial: Any, how: str) -> Any:
    """Adds auxiliary layers to a state.

    Args:
        state: `TrainState` of the network without them.
        initial: `TrainState` of the network with them, before its first step.
        how: "fresh" = as in `initial`; "copy" = the parameters and statistics of the natural rows'
            layer, with the optimiser's state as in `initial`.

    Returns:
        A state with the structure of `initial`.
    """
    present = by_name(state)

    def leaf(name: str, first: Any) -> Any:
        if not _is_aux(name):
            return present[name]
        natural = name.replace(f"/{AUX_PREFIX}", "/")
        return first if how == "fresh" or name.startswith("opt_state/") else present[natural] + 0

    wanted = by_name(initial)
    leaves = [leaf(name, first) for name, first in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(initial), leaves)


def _is_aux(name: str) -> bool:
    return f"/{AUX_PREFIX}" in name


def _is_scale(name: str) -> bool:
    return name.rpartition("/")[2] == CLASS_SCALE


def _is_projector(name: str) -> bool:
    return PROJECTOR in name.split("/")
