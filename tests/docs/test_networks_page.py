"""The page of networks lists all of them, with their sizes."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from purenoise_jax.models import LARGE, MODELS, create_model
from tests.docs.pages import DOCS, ROOT, inline_code, names_of, table

PAGE = DOCS / "networks.md"
ROWS = {names_of(row[0])[0]: row for row in table(PAGE, "name")}
# Compared with PyTorch's networks of 1000 classes by tests/models/test_network_goldens.py.
REAL = json.loads((ROOT / "tests/goldens/networks.json").read_text())


def test_it_lists_every_network():
    small = {f"{name}_cifar" for name in LARGE}
    # Tests and fault injection have networks of their own.
    assert set(ROWS) | small == set(MODELS) - {"tiny", "one_block"}
    assert small <= set(inline_code(PAGE))


@pytest.mark.parametrize("name", ROWS)
def test_its_sizes_are_those_of_the_network(name):
    features, parameters = (int(cell.replace(",", "")) for cell in ROWS[name][1:3])
    if name in REAL:
        assert parameters == REAL[name]["parameters"] - 1000 * (features + 1)
        return
    network = create_model(name, num_classes=10)
    init = partial(network.init_with_output, train=False)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    (_, outputs), variables = jax.eval_shape(init, jax.random.key(0), image)
    assert features == outputs["features"].shape[1]
    body = {part: tree for part, tree in variables["params"].items() if part != "head"}
    assert parameters == sum(leaf.size for leaf in jax.tree.leaves(body))
