"""Compiler options: the compiler knows them, they change no value, and they have their effect."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from purenoise_jax.models.conv import Conv
from purenoise_jax.runtime import compiler


@pytest.fixture(autouse=True)
def fresh():
    compiler.compiler_options.cache_clear()
    yield
    compiler.compiler_options.cache_clear()


def test_the_compiler_knows_every_option():
    assert compiler.compiler_options() == compiler.CPU_OPTIONS
    assert compiler.compiler_options(once=True) == compiler.CPU_ONCE_OPTIONS


def test_an_unknown_option_is_left_out(monkeypatch):
    monkeypatch.setattr(
        compiler, "CPU_OPTIONS", {**compiler.CPU_OPTIONS, "xla_cpu_no_such_option": "1"}
    )
    assert "xla_cpu_no_such_option" not in compiler.compiler_options()
    assert len(compiler.compiler_options()) == len(compiler.CPU_OPTIONS) - 1


def test_accelerators_get_no_options_and_no_barrier(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler.compiler_options() == compiler.compiler_options(once=True) == {}
    jaxpr = jax.make_jaxpr(compiler.optimization_barrier_on_cpu)(jnp.ones(3))
    assert "optimization_barrier" not in str(jaxpr)


def test_the_barrier_changes_neither_values_nor_gradients():
    x = jnp.linspace(-2, 2, 7)
    np.testing.assert_array_equal(compiler.optimization_barrier_on_cpu(x), x)
    tree = {"a": x, "b": (x > 0, jnp.arange(3))}
    chex.assert_trees_all_equal(compiler.optimization_barrier_on_cpu(tree), tree)
    check_grads(lambda x: jnp.sin(compiler.optimization_barrier_on_cpu(x * x)), (x,), order=2)


def test_a_weight_gradient_does_not_recompute_its_input():
    """The operations of the input appear once in the program, and not again for the gradient."""
    x = jnp.ones((4, 8, 8, 8))
    conv = Conv(8, (3, 3), use_bias=False)
    params = conv.init(jax.random.key(0), x)

    def loss(params, x):
        return jnp.square(conv.apply(params, jax.nn.relu(jnp.sin(x)))).sum()

    def program(options):
        step = jax.jit(jax.grad(loss), compiler_options=options)
        return step.lower(params, x).compile().as_text()

    text = program(compiler.compiler_options())
    assert text.count(" sine(") == 1
    # Barriers are kept until after fusion. Without the option, jax 0.10 repeats the sine.
    assert " opt-barrier(" in text
    assert " opt-barrier(" not in program({})


def test_a_lower_optimization_level_draws_the_same_parameters():
    layer = Conv(7, (3, 3))

    def init():
        return layer.init(jax.random.key(3), jnp.zeros((1, 5, 5, 3)))

    plain, once = (
        jax.jit(init, compiler_options=options)()
        for options in ({"xla_backend_optimization_level": 3}, compiler.compiler_options(once=True))
    )
    chex.assert_trees_all_equal(plain, once)


def test_compiled_ahead_equals_the_jitted_function_and_refuses_other_shapes():
    jitted = jax.jit(lambda x, y: jnp.sin(x) + y)
    shapes = [jax.ShapeDtypeStruct((3,), np.float32), jax.ShapeDtypeStruct((), np.int32)]
    ahead = compiler.CompiledAhead(jitted, *shapes)
    x, y = np.arange(3, dtype=np.float32), np.int32(2)
    np.testing.assert_array_equal(ahead(x, y), jitted(x, y))
    with pytest.raises(TypeError):
        ahead(x[:2], y)


def test_an_error_in_the_background_is_raised_by_the_call():
    def wrong(x):
        raise KeyError("inside")

    ahead = compiler.CompiledAhead(jax.jit(wrong), jax.ShapeDtypeStruct((), np.float32))
    with pytest.raises(KeyError, match="inside"):
        ahead(np.float32(0))
