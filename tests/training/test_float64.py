"""The number of devices that share a batch changes only the rounding, tested in float64.

In float32 the differences of rounding grow with every step, so that many steps show nothing.
"""

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from purenoise_jax.models.norm import DARBatchNorm
from tests.device_counts import difference, train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("network", "norm", "counts"),
    [("resnet", "dar_bn", "8"), ("wide", "aux_bn", "4"), ("tiny", "bn", "2")],
)
def test_thirty_steps_in_float64_are_the_same_on_every_number_of_devices(network, norm, counts):
    """Over two ends of epochs and padding, with noise; the small one changes from ERM to OPeN."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.device_counts", network, norm, *counts.split()],
        env={**os.environ, "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert len(found) == len(counts.split())
    for each in found:
        assert set(each) == {"params", "batch_stats", "opt_state", "loss"}
        assert max(each.values()) <= 1e-12, found


class OfOneDevice(DARBatchNorm):
    """As if every device normalised by the moments of the first of two."""

    def of_groups(self, batch, running, groups):
        first = jnp.arange(groups[0].size) < groups[0].size // 2
        return super().of_groups(batch, running, [group & first for group in groups])


def test_one_step_in_float32_is_the_same_to_rounding():
    def step(network, norm, devices):
        return train(network, norm, devices, jnp.float32, phases=[("open",)], steps=1)

    one = step("tiny", "dar_bn", 1)
    assert max(difference(one, step("tiny", "dar_bn", 8)).values()) <= 2e-6
    # What this would catch.
    assert min(difference(one, step("tiny", OfOneDevice, 1)).values()) > 1e-3
