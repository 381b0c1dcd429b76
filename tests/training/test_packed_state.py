"""Small arrays of a state in long vectors: the same values, bit for bit."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods.optimizer import make_optimizer
from purenoise_jax.models import create_model
from purenoise_jax.training import packed_state
from purenoise_jax.training.accumulators import EpochMetrics
from purenoise_jax.training.packed_state import StatePacking, packing_of
from purenoise_jax.training.train_step import init_state


@pytest.fixture(scope="module")
def state():
    model = create_model("resnet8", num_classes=3, norm="aux_bn", dtype="float32")
    tx = make_optimizer("adamw", momentum=0.9, weight_decay=0, clip_norm=1)
    memory = {"mean": lambda variables: variables["params"], "count": lambda _: jnp.int32(7)}
    empty = jax.jit(partial(init_state, model, tx, (8, 8, 3), 0, memory))()
    leaves, structure = jax.tree.flatten(empty)
    rng = np.random.default_rng(0)
    values = [rng.normal(size=leaf.shape).astype(leaf.dtype) for leaf in leaves]
    return jax.tree.unflatten(structure, map(jnp.asarray, values))


def test_a_state_is_unpacked_as_it_was(state):
    packing = StatePacking.of(jax.eval_shape(lambda: state))
    packed = jax.jit(packing.pack)(state)
    assert len(jax.tree.leaves(packed)) < 16 < len(jax.tree.leaves(state)) / 4
    chex.assert_trees_all_equal(jax.jit(packing.unpack)(packed), state)


def test_arrays_above_the_size_stay_as_they_are(state, monkeypatch):
    monkeypatch.setattr(packed_state, "MAX_SIZE", 500)
    packing = packing_of(state.params)
    packed = packing.pack(state.params)
    large = [leaf for leaf in jax.tree.leaves(state.params) if leaf.size > 500]
    assert large and [leaf.shape for leaf in packed[-len(large) :]] == [x.shape for x in large]
    chex.assert_trees_all_equal(packing.unpack(packed), state.params)


def test_dtypes_are_not_mixed_and_scalars_are_joined_only_on_demand():
    tree = EpochMetrics.zero(5)
    apart, joined = packing_of(tree).pack(tree), packing_of(tree, scalars=True).pack(tree)
    assert len(apart) == 6 and len(joined) == 3
    assert {leaf.dtype for leaf in joined} == {
        jnp.dtype("float32"),
        jnp.dtype("int32"),
        jnp.dtype(bool),
    }
    chex.assert_trees_all_equal(packing_of(tree, scalars=True).unpack(joined), tree)
    assert packing_of({}).unpack(packing_of({}).pack({})) == {}
