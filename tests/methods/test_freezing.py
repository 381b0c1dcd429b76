"""Freezing: parts that stay as they are to the last bit, while the rest trains."""

import jax
import numpy as np
import pytest

from purenoise_jax.checkpoint.tree_names import by_name
from purenoise_jax.config.identity import config_hash
from purenoise_jax.config.phase_fields import make_phase
from purenoise_jax.data.batch import BatchBuilder
from purenoise_jax.data.statistics import DataStats
from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.freezing import FREEZABLE, in_part, with_frozen
from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.models import create_model
from purenoise_jax.models.pretrained import shapes_of
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.build import build
from purenoise_jax.training.loop import train_and_evaluate
from purenoise_jax.training.train_step import Inputs, Rows, init_state, make_step
from tests.tiny import tiny_config, write_npz

HALF = np.full(3, 0.5, np.float32)
STATS = DataStats(np.array([40, 10, 5]), (8, 8, 3), *[HALF] * 6)
RNG = np.random.default_rng(0)
INPUTS = Inputs(
    RNG.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8), (np.arange(8) % 3).astype(np.int32)
)
ROWS = Rows(np.arange(8), np.ones(8, bool))


def after_steps(recipe, model="tiny", steps=3, seed=0):
    """States before and after some steps with momentum and weight decay, by name."""
    model = create_model(model, num_classes=3)
    tx = make_optimizer("sgd", momentum=0.9, weight_decay=1e-2)
    builder = BatchBuilder(None, HALF, HALF, 3)
    step = jax.jit(make_step(model, tx, lambda step: 0.1, recipe, builder, seed).update)
    state = first = jax.jit(lambda: init_state(model, tx, (8, 8, 3), 0))()
    for _ in range(steps):
        state, _, _ = step(state, INPUTS, ROWS)
    return [{n: np.asarray(x) for n, x in by_name(s).items()} for s in (first, state)]


def changed(first, last):
    """Names of the parameters and statistics that differ in any bit."""
    names = [n for n in first if n.startswith(("params/", "batch_stats/"))]
    return {n for n in names if (first[n] != last[n]).any()}


def test_the_parts_of_a_network_are_told_by_the_names_of_its_modules():
    modules = list(shapes_of(create_model("resnet8", num_classes=3), (8, 8, 3))["params"])
    parts = {p: {m for m in modules if in_part((m, "kernel"), p)} for p in FREEZABLE}
    assert parts == {
        "backbone": set(modules) - {"head"},
        "stem": {"conv0", "bn0"},
        **{f"stage{i}": {f"stage{i}_block0"} for i in (1, 2, 3)},
        "stage4": set(),
    }
    assert not in_part(("stage10_block0",), "stage1") and not in_part(("projector",), "backbone")


def test_a_frozen_backbone_keeps_every_bit_and_its_statistics_while_the_head_moves():
    recipe = with_frozen(build_recipe(["erm"], STATS, {}), ("backbone",))
    first, last = after_steps(recipe)
    assert changed(first, last) == {"params/head/kernel", "params/head/bias"}
    first, free = after_steps(build_recipe(["erm"], STATS, {}))
    assert changed(first, free) == {n for n in first if n.startswith(("params/", "batch_stats/"))}


def test_plain_training_over_a_frozen_backbone_is_the_second_stage_on_the_same_rows():
    """Classifier re-training differs in the rows that it draws, outside a step."""
    frozen = with_frozen(build_recipe(["erm"], STATS, {}), ("backbone",))
    _, mine = after_steps(frozen)
    _, crt = after_steps(build_recipe(["crt"], STATS, {}))
    for name, array in crt.items():
        np.testing.assert_array_equal(mine[name], array, name)


def test_what_a_method_freezes_stays_frozen():
    recipe = with_frozen(build_recipe(["crt"], STATS, {}), ("stem",))
    trains = {p: recipe.trainable((p, "kernel")) for p in ("conv0", "stage1_block0", "head")}
    assert trains == {"conv0": False, "stage1_block0": False, "head": True}
    plain = build_recipe(["erm"], STATS, {})
    assert with_frozen(plain, ()) is plain


@pytest.mark.slow
def test_frozen_stages_keep_every_bit_while_the_others_move():
    recipe = with_frozen(build_recipe(["open"], STATS, {}), ("stem", "stage1"))
    first, last = after_steps(recipe, "resnet8", steps=2)
    parameters = {n for n in first if n.startswith("params/")}
    frozen = {n for n in parameters if n.split("/")[1] in ("conv0", "bn0", "stage1_block0")}
    assert frozen and changed(first, last) == parameters - frozen


def test_a_part_that_the_network_lacks_is_refused(tmp_path):
    config = tiny_config(write_npz(tmp_path / "tiny.npz"))
    config.phases.deferred = make_phase(2, ("open",), freeze=("stage4",))
    message = r"^the phase from epoch 2 has freeze=stage4, but .*=tiny .* legal: backbone$"
    with pytest.raises(ConfigError, match=message):
        build(config)


def test_runs_without_it_keep_their_hash():
    config = tiny_config("x.npz")
    before = config_hash(config)
    config.phases.initial = make_phase(0, ("erm",), freeze=())
    assert config_hash(config) == before
    config.phases.initial.freeze = ("backbone",)
    assert config_hash(config) != before


@pytest.mark.slow
def test_a_backbone_is_frozen_for_a_phase_and_trains_in_the_next(tmp_path):
    config = tiny_config(write_npz(tmp_path / "tiny.npz"), num_epochs=2)
    del config.phases["deferred"]
    config.phases.initial = make_phase(0, ("erm",), freeze=("backbone",))
    first = build(config).init()
    config.num_epochs = 1
    state = train_and_evaluate(config, tmp_path / "run")
    np.testing.assert_array_equal(state.params["conv"]["kernel"], first.params["conv"]["kernel"])
    np.testing.assert_array_equal(state.batch_stats["norm"]["mean"], 0)
    assert (state.params["head"]["kernel"] != first.params["head"]["kernel"]).any()
    config.num_epochs = 2
    config.phases.all = make_phase(1, ("erm",))
    state = train_and_evaluate(config, tmp_path / "both")
    assert (state.params["conv"]["kernel"] != first.params["conv"]["kernel"]).any()
    assert (state.batch_stats["norm"]["mean"] != 0).any()
