"""Comparison of a checkpoint's record with the run that wants to use it."""

import pytest

from purenoise_jax.checkpoint.identity import check_same
from purenoise_jax.runtime.errors import CheckpointError


def test_a_frozen_network_under_its_former_name_is_the_same():
    earlier = {"model": "resnet8", "frozen": {"m2m": "abc"}}
    check_same(earlier, {"model": "resnet8", "frozen": {"g": "abc"}}, "runs/m2m")
    with pytest.raises(CheckpointError, match=r"frozen: .*abc.* there, .*def.* here"):
        check_same(earlier, {"frozen": {"g": "def"}}, "runs/m2m")
    assert earlier["frozen"] == {"m2m": "abc"}
