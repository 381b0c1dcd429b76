"""The convolution equals Flax's, with its weight gradient in groups or not."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from purenoise_jax.models import conv


@pytest.fixture
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def test_groups_are_used_for_narrow_layers_on_large_maps(one_device):
    def taken(shape, outputs=16):
        return conv.in_groups(jnp.zeros(shape), jnp.zeros((3, 3, shape[-1], outputs)))

    assert taken((17, 32, 32, 16))
    for shape in ((16, 32, 32, 16), (17, 31, 32, 16), (17, 32, 32, 33)):
        assert not taken(shape)
    assert not taken((17, 32, 32, 16), 33)


def test_groups_are_not_used_on_several_devices():
    assert jax.device_count() == 8
    assert not conv.in_groups(jnp.zeros((17, 32, 32, 16)), jnp.zeros((3, 3, 16, 16)))


@pytest.mark.parametrize(
    ("images", "strides", "channel_groups"), [(32, 1, 1), (37, 1, 1), (32, 2, 1), (37, 2, 2)]
)
def test_gradients_are_those_of_flax(one_device, images, strides, channel_groups):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(images, 32, 32, 2)), jnp.float32)
    outputs = 4 if channel_groups > 1 else 3
    settings = {"padding": ((1, 1), (1, 1)), "strides": strides, "use_bias": False}
    settings |= {"feature_group_count": channel_groups}
    ours, theirs = (layer(outputs, (3, 3), **settings) for layer in (conv.Conv, nn.Conv))
    params = ours.init(jax.random.key(0), x)
    ct = jnp.asarray(rng.normal(size=(images, 32 // strides, 32 // strides, outputs)), jnp.float32)

    def gradients(layer):
        return jax.value_and_grad(lambda p, x: (layer.apply(p, x) * ct).sum(), (0, 1))(params, x)

    chex.assert_trees_all_close(gradients(ours), gradients(theirs), rtol=1e-4, atol=1e-4)
    text = str(jax.make_jaxpr(lambda: gradients(ours))())
    # Forward pass, input gradient, and one weight gradient per group.
    assert text.count("conv_general_dilated[") == 2 + -(-images // conv.IMAGES)


def test_a_gradient_of_a_gradient_exists(one_device):
    x = jnp.ones((17, 32, 32, 1))
    layer = conv.Conv(1, (3, 3))
    params = layer.init(jax.random.key(0), x)

    def loss(params):
        return jnp.square(layer.apply(params, x)).mean()

    grad = jax.grad(loss)
    _, product = jax.jvp(grad, (params,), (params,))
    # The loss is a quadratic form, so its Hessian times the parameters is its gradient.
    chex.assert_trees_all_close(product, grad(params), rtol=1e-4)
