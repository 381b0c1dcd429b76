"""The steps whose time over plain training's is measured."""

import jax
import numpy as np
import pytest

from benchmarks import method_costs
from purenoise_jax.methods import METHODS
from purenoise_jax.training.build import build

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return method_costs.write_images(tmp_path_factory.mktemp("costs") / "images.npz", 16, size=16)


def test_every_method_has_a_phase_to_be_timed_in(images, tmp_path):
    network = method_costs.train_network(images, "resnet8", 16, tmp_path / "erm")
    for method in METHODS:
        config = method_costs.method_config(method, images, "resnet8", 16, network)
        phases = [name for phase in build(config).phases for name in phase.methods]
        assert {"drs": "rs"}.get(method, method) in phases, method


def test_a_program_trains_with_the_method(images):
    config = method_costs.method_config("sam", images, "resnet8", 16)
    program = method_costs.method_program(config, "sam")
    box = program.run.__closure__[program.run.__code__.co_freevars.index("box")].cell_contents
    before = jax.device_get(box[0].params)
    program.run()
    program.run()
    after = jax.device_get(box[0].params)
    assert int(box[0].step) == 2 and program.facts["phase"] == "sam"
    moved = [
        np.abs(a - b).max()
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    ]
    assert all(np.isfinite(moved)) and max(moved) > 0
