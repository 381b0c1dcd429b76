"""The check for finite values: one element beyond the limit is found wherever it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.training.finite_check import LARGEST_JOINED, all_within

# A vector, a matrix and a convolution's kernel above the size from which arrays are reduced first,
# and small ones of the same ranks.
SHAPES = [(LARGEST_JOINED + 1,), (LARGEST_JOINED // 4 + 1, 4), (3, 3, 256, 256), (5,), (2, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf, 2.0, -2.0])
def test_an_element_beyond_the_limit_is_found_at_both_ends(shape, fault):
    check = jax.jit(lambda tree: all_within((tree, 1.0)))
    good = np.full(shape, 0.5, np.float32)
    assert check({"a": good, "b": good, "count": np.int32(7)})
    for place in (0, good.size // 2, -1):
        bad = good.copy()
        bad.flat[place] = fault
        assert not check({"a": good, "b": bad, "count": np.int32(7)}), place


def test_every_tree_has_its_own_limit_and_no_array_is_within():
    big, small = jnp.full(4, 9.0), jnp.full(4, 0.5)
    assert all_within((big, 10.0), (small, 1.0)) and not all_within((big, 1.0), (small, 10.0))
    assert all_within() and all_within(({"step": jnp.int32(3)}, 1.0))
