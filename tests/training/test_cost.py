"""The estimate of a run's time on a CPU, and the network that is offered for a long one."""

from functools import partial

import numpy as np
import pytest
from flax import linen as nn

from purenoise_jax.models import create_model
from purenoise_jax.runtime.console import duration
from purenoise_jax.training import cost
from purenoise_jax.training.records import rate_line

MAKE = partial(create_model, num_classes=10)


class Small(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(6, (3, 3), (2, 2), feature_group_count=3, name="grouped")(x)
        return nn.Dense(5)(x.mean((1, 2)))


def test_multiplications_are_those_counted_by_hand():
    # 4 x 4 outputs of 6 channels with 9 weights each, and 6 x 5 of the head.
    assert cost.multiplications(Small(), (8, 8, 3)) == 16 * 6 * 9 + 30


@pytest.mark.parametrize(
    ("model", "shape", "published"),
    # He et al. 2016, tables 1 and 6 (with projections in place of padding for ResNet-18).
    [("resnet18", (224, 224, 3), 1.8e9), ("resnet20", (32, 32, 3), 40.6e6)],
)
def test_multiplications_of_networks_are_those_published(model, shape, published):
    assert cost.multiplications(MAKE(model), shape) == pytest.approx(published, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "side", "names"),
    [(cost.SMALL, 32, ("wrn28_10", "resnet56", "resnet8")), (cost.LARGE, 224, ("resnet50", "resnet10"))],
)  # fmt: skip
def test_the_tables_are_what_is_counted(table, side, names):
    for name in names:
        counted = cost.multiplications(MAKE(name), (side, side, 3))
        assert counted == pytest.approx(table[name], rel=0.03)


def test_the_tables_begin_with_the_largest_networks():
    for table in (cost.SMALL, cost.LARGE):
        assert [*table.values()] == sorted(table.values(), reverse=True)


def line(name, side, images, cores=2, resizes=True, model=None):
    return cost.cost_line(name, model, (side, side, 3), images=images, cores=cores, resizes=resizes)


def takes(name, side, images, cores=2):
    table, of = (cost.SMALL, 32) if name in cost.SMALL else (cost.LARGE, 224)
    return 3 * table[name] * (side / of) ** 2 * images / (cores * 2e10)


def test_only_runs_of_more_than_an_hour_are_offered_a_smaller_network():
    images = 12_406 * 40
    for name in cost.SMALL:
        text = line(name, 32, images)
        assert bool(text) == (takes(name, 32, images) > 3600), name
        if text:
            assert text.startswith(f"about {duration(takes(name, 32, images))} on 2 CPU cores")
    assert line("wrn28_10", 32, images) and not line("wrn28_10", 32, images, cores=128)


def test_the_offer_is_the_largest_network_that_takes_an_hour_at_most():
    text = line("wrn28_10", 32, 4e6)
    fitting = [name for name in cost.SMALL if takes(name, 32, 4e6) <= 3600]
    assert f"smaller: --config.model.name={fitting[0]}, about" in text


def test_images_become_smaller_where_no_network_is_small_enough():
    text = line("resnet18", 224, 200 * 3_000)
    assert "smaller: --config.model.name=resnet10 --config.data.image_size=64, about" in text
    assert "image_size" not in line("resnet18", 224, 200 * 3_600, resizes=False)
    assert "smaller" not in line("resnet10", 128, 1e8, resizes=False)


@pytest.mark.parametrize(
    ("name", "side", "offered"),
    [
        ("resnet50", 224, "resnet10"),
        ("resnet10", 224, "resnet10 --config.data.image_size=128"),
        ("resnet32", 32, "resnet8"),
        ("resnet8", 32, None),
    ],
)
def test_a_network_that_is_offered_is_cheaper_than_that_of_the_run(name, side, offered):
    day = 86400.0
    text = cost.offer(name, None, (side, side, 3), time=3 * day, most=day, resizes=True)
    if offered is None:
        assert text == ""
    else:
        assert text.startswith(f"--config.model.name={offered}, about ")


def test_a_network_of_no_table_is_traced():
    text = line("own", 8, 1e14, model=Small(), resizes=False)
    assert text.startswith(f"about {duration(3 * 894 * 1e14 / 4e10)} on")


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ([0.1, 0.1], "0.1"),
        ([0.05, 0.1, 0.1, 0.01], "0.1 after 1 epoch of warm-up, 0.01 from epoch 3"),
        (np.linspace(1, 0.1, 10), "1, 0.1 in the last epoch"),
    ],
)
def test_the_learning_rate_is_told_in_one_line(rates, text):
    assert rate_line(np.array(rates, float)) == text
