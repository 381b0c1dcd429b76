"""An entry of `METHODS`: a method with its check, its usual phase and the model that it needs."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from purenoise_jax.methods.recipe import Recipe

Apply = Callable[..., Recipe]


@dataclasses.dataclass(frozen=True)
class UsualPhase:
    """The part of a run in which a method trains, unless a config says otherwise.

    Lengths are shares of the epochs of training, so that `epochs=N` of a config scales them all.

    Attributes:
        start: the share of training after which the method begins. 1 = in a second stage, after
            the training, in which only methods of the second stage and of all stages take part.
        epochs: length of the second stage, which has at least one epoch; 0 unless `start` is 1.
        all_stages: the method takes part in a second stage, too.
        reset: parts that are reset at the start of a second stage.
        learning_rate: of a second stage's own schedule.
        schedule: other fields of the phase, with lengths in shares of the second stage.
    """

    start: float = 0.0
    epochs: float = 0.0
    all_stages: bool = False
    reset: tuple[str, ...] = ()
    learning_rate: float = 0.0
    schedule: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# From the first drop of the learning rate on, as in the papers: after 160 of 200 epochs.
DEFERRED = UsualPhase(start=0.8)


class Method(NamedTuple):
    """A method and all that belongs to it.

    Attributes:
        apply: the method, a function (recipe, stats, *, arguments) -> recipe.
        check: function (arguments by name, batch size) that raises ConfigError before any data are
            read; None = any legal arguments fit together.
        phase: in which the method usually trains.
        model: argument of the model -> the value that the method needs, such as
            {"head": "cosine"}. A config that names the method gets it; another value is refused.
        frozen: name of a network of another run, which the method evaluates and does not train ->
            method with which that run is usually trained, such as {"g": "erm"}. The field
            frozen.NAME of a config is its workdir, and `networks.frozen[NAME]` its network. Methods
            that give the same name share one network.
        listed_as: the name in the phases of a config, if it is another one: "drs" is "rs" that
            begins later.
        replaces: the methods that usually end where this one begins: "tla" follows "vs".
        source: the publications that `--help` names, joined by ";", where the file has several
            methods; "" = those that its docstring names as its source.
        only_evaluates: training is that of a run without the method, which changes evaluation
            alone; so such a run's last checkpoint is all that it needs.
    """

    apply: Apply
    check: Callable[[Mapping[str, Any], int], None] | None = None
    phase: UsualPhase = UsualPhase()
    model: Mapping[str, str] = MappingProxyType({})
    frozen: Mapping[str, str] = MappingProxyType({})
    listed_as: str = ""
    replaces: tuple[str, ...] = ()
    source: str = ""
    only_evaluates: bool = False


def as_method(entry: Apply | Method) -> Method:
    """Returns an entry of `METHODS` as a `Method`; a function alone is one without the rest."""
    return entry if isinstance(entry, Method) else Method(entry)
