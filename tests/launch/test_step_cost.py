"""The cost of a step: against counts of passes by hand, and by size of the images."""

import jax
import jax.numpy as jnp
import pytest

from launch.plan import MINI_EPOCHS, MINI_MODEL, Plan
from launch.planning import tasks_of, training_pflop
from launch.step_cost import passes
from purenoise_jax.runtime.flops import flops_of


def cost(*methods, **fields):
    config = Plan().config("CIFAR-10-LT", "+".join(methods), **fields)
    return passes(config, config.phases.initial.methods)


def test_loops_count_with_every_round_and_unused_products_do_not():
    matrix = jnp.ones((3, 3))

    def looped(x):
        unused = x @ x
        del unused
        return jax.lax.fori_loop(0, 5, lambda _, y: y @ matrix, x)

    assert flops_of(looped, matrix) == 5 * 2 * 27


def test_a_loss_or_a_weight_costs_no_pass():
    for methods in (("erm",), ("ldam",), ("class_balanced",), ("vs",), ("ema",)):
        assert cost(*methods) == 1


def test_noise_in_place_of_images_costs_nothing_and_appended_noise_its_share():
    config = Plan().config("CIFAR-10-LT", "open")
    assert passes(config, ("open",)) == pytest.approx(1, abs=1e-3)
    balanced = Plan().config("CIFAR-10", "append", method__append__share=0.5)
    assert passes(balanced, ("append",)) == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize(("method", "count"), [("sam", 2), ("imbsam", 3), ("focal_sam", 3)])
def test_ascent_steps_are_passes(method, count):
    assert cost(method) == pytest.approx(count, abs=1e-3)
    assert cost(method, "ldam") == pytest.approx(count, abs=1e-2)


@pytest.mark.parametrize("method", ["joint_ssl", "glmc"])
def test_a_second_view_is_a_second_pass(method):
    assert cost(method) == pytest.approx(2, abs=1e-2)
    assert cost(method, "sam") == pytest.approx(4, abs=2e-2)


def test_translations_cost_in_proportion_to_their_steps():
    config = Plan().config("CIFAR-10-LT", "m2m")

    def of(steps):
        config.method.m2m.num_steps = steps
        return passes(config, config.phases.deferred.methods)

    one, two, three = of(1), of(2), of(3)
    assert three - two == pytest.approx(two - one) and two > one > 1
    # A step goes forwards and back to the image, in both networks.
    assert two - one == pytest.approx(2 * 2 / 3, rel=0.05)


def test_a_constant_backbone_has_only_its_forward_pass():
    config = Plan().config("CIFAR-10-LT", "crt", model="resnet32")
    assert passes(config, config.phases.second_stage.methods) == pytest.approx(1 / 3, rel=0.05)


def test_images_of_half_the_side_cost_a_quarter(tmp_path):
    (large,) = tasks_of(
        Plan(epochs=MINI_EPOCHS).config("CIFAR-10-LT", "erm", model=MINI_MODEL), 0, tmp_path
    )
    mini = Plan(epochs=MINI_EPOCHS, model=MINI_MODEL, mini=True)
    (small,) = tasks_of(mini.config("CIFAR-10-LT", "erm"), 0, tmp_path)
    assert training_pflop(small) / training_pflop(large) == pytest.approx(0.25, rel=1e-3)
