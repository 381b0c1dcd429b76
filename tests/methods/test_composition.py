"""Methods together: every pair or triple builds steps that train, or is refused in one line."""

import dataclasses
import itertools
import random
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from purenoise_jax.config.parts import set_methods
from purenoise_jax.config.usual_phases import Times
from purenoise_jax.config.validation import validate
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import METHODS, as_method, build_recipe
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.models import MODELS, create_model
from purenoise_jax.models.network import Network
from purenoise_jax.runtime.compiler import compiler_options
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training import build as build_module
from purenoise_jax.training.train_step import Inputs, Rows, init_state, make_step
from tests.docs.pages import DOCS
from tests.tiny import tiny_config, write_npz

HALF = np.full(3, 0.5, np.float32)
STATS = DataStats(np.array([500, 100, 20]), (16, 16, 3), *[HALF] * 6)
# The rarest class has 3 % of the images.
ARGUMENTS = {"seql": {"threshold": 0.05}}
RNG = random.Random(0)
# Methods of a second stage take part in it alone, see `UsualPhase`.
TRAINING = [name for name in METHODS if as_method(METHODS[name]).phase.start < 1]
PAIRS = list(itertools.combinations(TRAINING, 2))
# Random ones beside each method with OPeN, which is the point of the package.
CHOSEN = sorted(
    {
        *(("open", name) for name in TRAINING if name != "open"),
        *RNG.sample(PAIRS, 10),
        *(tuple(RNG.sample(TRAINING, 3)) for _ in range(10)),
    }
)


SECOND = [name for name in METHODS if name not in TRAINING]
# With and without a second stage.
TRAINED = sorted(
    {
        *(tuple(RNG.sample(TRAINING, size)) for size in (2, 3, 2, 3, 3)),
        *((*RNG.sample(TRAINING, 1 + i % 2), n) for i, n in enumerate(RNG.sample(SECOND, 5))),
    }
)


class OneLayer(Network, kw_only=True):
    """A network with heads, projectors and places to mix at, whose steps compile fast."""

    places: ClassVar = ("input", "stage1", "stage2", "stage3", "features")

    def stages(self, x, rows, norm, *, train, mix):
        x = nn.Conv(8, (3, 3), strides=2, use_bias=False, name="conv0")(x)
        x = norm(name="bn0", relu=True)(x, *rows)
        for place in self.places[1:-1]:
            x = mix(place, x)
        return x


def recipe_of(names):
    """The recipe, or None if the methods are refused, which must take one line."""
    try:
        return build_recipe(names, STATS, ARGUMENTS)
    except ConfigError as error:
        message = str(error)
        assert "\n" not in message and any(name in message for name in names), message
        return None


def test_methods_are_refused_or_build_in_either_order():
    for names in PAIRS:
        recipe, other = recipe_of(names), recipe_of(names[::-1])
        assert (recipe is None) == (other is None), names


@pytest.mark.parametrize(
    "names",
    # Every sixth in the fast tests.
    [pytest.param(n, marks=[pytest.mark.slow] * (i % 6 > 0)) for i, n in enumerate(CHOSEN)],
    ids="+".join,
)
def test_a_step_with_several_methods_keeps_the_shapes_of_its_state(names):
    recipe = recipe_of(names)
    if recipe is None:
        return
    model = create_model("resnet8", num_classes=3, **dict(recipe.requires))
    tx = make_optimizer("sgd", momentum=0.9, weight_decay=1e-4)
    builder = BatchBuilder(None, HALF, HALF, 3)
    step = make_step(model, tx, lambda step: jnp.float32(0.1), recipe, builder, seed=0)
    memory = {name: each.init for name, each in recipe.memory.items()}
    state = jax.eval_shape(lambda: init_state(model, tx, (16, 16, 3), 0, memory))
    frozen = {name: {"params": state.params, "batch_stats": state.batch_stats} for name in recipe.frozen}  # fmt: skip
    inputs = Inputs(
        jax.ShapeDtypeStruct((30, 16, 16, 3), np.uint8),
        jax.ShapeDtypeStruct((30,), np.int32),
        frozen,
    )
    rows = Rows(jax.ShapeDtypeStruct((8,), np.int32), jax.ShapeDtypeStruct((8,), np.bool_))
    after, _, gradient = jax.eval_shape(step.update, state, inputs, rows)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert jax.tree.structure(gradient) == jax.tree.structure(state.params)
    evaluated = jax.eval_shape(recipe.evaluated, state)
    images = jax.ShapeDtypeStruct((5, 16, 16, 3), np.float32)
    logits = jax.eval_shape(
        lambda v, x: recipe.postprocess(model.apply(v, x, train=False)[0], jnp.zeros(3)),
        evaluated,
        images,
    )
    assert logits.shape == (5, 3)


@pytest.fixture
def experiment_of(tmp_path, monkeypatch):
    """Builds the run of methods, as the configs lay them out; None if it is refused in one line."""
    monkeypatch.setitem(MODELS, "one_layer", OneLayer)

    def with_frozen_networks(experiment, config):
        del config
        names = {name for phase in experiment.phases for name in phase.recipe.frozen}
        state = jax.device_get(experiment.init())
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return dataclasses.replace(experiment, frozen=dict.fromkeys(names, variables))

    monkeypatch.setattr(build_module, "_with_frozen_networks", with_frozen_networks)
    config = tiny_config(write_npz(tmp_path / "tiny.npz", size=16))
    config.model.name, config.frozen.g = "one_layer", "runs/erm"

    def make(names):
        try:
            set_methods(
                config, "+".join(names), 4, times=Times(4, warmup=1, drops=(3,), deferred=2)
            )
            if config.model.projector != "none":
                config.model.projector_width = 8
            validate(config)
            return build_module.build(config)
        except ConfigError as error:
            message = str(error)
            assert "\n" not in message and any(name in message for name in names), message
            return None

    return make


@pytest.mark.slow
@pytest.mark.parametrize("names", TRAINED, ids="+".join)
def test_two_steps_of_the_last_phases_leave_everything_finite(names, experiment_of):
    """Those of the training in which all methods take part, and those of a second stage after it."""
    experiment = experiment_of(names)
    if experiment is None:
        return
    state, inputs = experiment.init(), experiment.inputs()
    second = {*names} & {*SECOND}
    for phase in experiment.phases[-2:] if second else experiment.phases[-1:]:
        state = experiment.enter(phase, state)
        index, valid = experiment.sampler.epoch(phase.start, phase.recipe.class_probs)
        step_fn = experiment.step_fn(phase).update
        update = jax.jit(step_fn, compiler_options=compiler_options(once=True))
        for step in range(2):
            before = state
            state, sums, grads = update(state, inputs, Rows(index[step], valid[step]))
            assert np.isfinite(sums.row_loss), phase.methods
            for tree in (state, grads):
                assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)), phase.methods
        moved = [
            (new != old).any()
            for new, old in zip(*map(jax.tree.leaves, (state.params, before.params)), strict=True)
        ]
        # Nothing trains in the phase of the class means.
        assert any(moved) != ("ncm" in phase.methods), phase.methods


def test_the_page_says_which_methods_exclude_each_other():
    """Two methods of a row of the table exclude each other, and others do not."""
    text = (DOCS / "methods.md").read_text().split("## Combining methods")[1]
    text = text.split("| second stage |")[0]
    rows = [line.split("|")[2] for line in text.splitlines() if line.startswith("| ")]
    groups = [{part.strip("` ") for part in row.split(",")} & {*METHODS} for row in rows]
    groups = [group for group in groups if len(group) > 1]
    assert groups
    for pair in PAIRS:
        together = recipe_of(pair) is not None
        listed = any(set(pair) <= group for group in groups)
        assert together != listed, (pair, "can" if together else "cannot", "be used together")


@pytest.mark.slow
def test_the_page_says_which_methods_a_second_stage_excludes(experiment_of):
    text = (DOCS / "methods.md").read_text().split("| second stage |")[1]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    listed = {
        (first.strip("` "), second.strip("` "))
        for seconds, firsts in rows
        for second in seconds.split(",")
        for first in firsts.split(",")
    }
    assert listed <= set(itertools.product(TRAINING, SECOND))
    for pair in itertools.product(TRAINING, SECOND):
        together = experiment_of(pair) is not None
        assert together != (pair in listed), (pair, "can" if together else "cannot", "be together")
