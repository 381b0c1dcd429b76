"""The meta sampler: its gradient against PyTorch, its steps against numpy, its draws and limits."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purenoise_jax.methods import build_recipe
from purenoise_jax.methods.meta_sampler import NAME, log_rates, meta_gradient
from purenoise_jax.methods.recipe import Observed
from purenoise_jax.runtime import rng
from purenoise_jax.runtime.errors import ConfigError
from purenoise_jax.training.train_step import Rows
from tests.headed_step import params_of, setup
from tests.linear_step import COUNTS, STATS, data, softmax

GOLDEN = dict(np.load(Path(__file__).parents[1] / "goldens" / "meta.npz"))
LOG_COUNTS = jnp.log(jnp.asarray(COUNTS, jnp.float32))
RECIPE = build_recipe(["meta_sampler"], STATS, {"meta_sampler": {"bn": "frozen"}})


gradient = jax.jit(partial(meta_gradient, loss=RECIPE.loss, log_counts=LOG_COUNTS))


def after(recipe, params, steps=1, **given):
    """The state after steps."""
    step, state, inputs, rows = setup(recipe, params, **given)
    update = jax.jit(lambda state: step.update(state, inputs, rows)[0])
    for _ in range(steps):
        state = update(state)
    return state


def golden_step(case, **changes):
    """The facts of a step of the goldens; padding has features that are not numbers."""
    given, valid = {**GOLDEN, **changes}, GOLDEN["valid"]

    def wide(name):
        return jnp.asarray(np.where(valid[:, None], given[name], np.nan), jnp.float32)

    def head(prefix):
        kernel, bias = (jnp.asarray(given[prefix + x], jnp.float32) for x in ("kernel", "bias"))
        return {"params": {"head": {"fc": {"kernel": kernel, "bias": bias}}}}

    label = jnp.asarray(given[f"{case}/label"], jnp.int32)
    batch = {
        "gumbel": jnp.asarray(given["gumbel"], jnp.float32),
        "label": label,
        "target": jnp.eye(3)[label],
        "valid": jnp.asarray(valid),
        "host_label": jnp.asarray(given["host_label"], jnp.int32),
        "host_valid": jnp.asarray(valid),
    }
    outputs = {name: wide(name) for name in ("features", "host_features")}
    rate = jnp.float32(given["rate"])
    return Observed(head(f"{case}/"), jnp.int32(0), batch, outputs, head(""), rate)


def gradient_of(case, observed=None, w=None):
    w = jnp.asarray(GOLDEN[f"{case}/w"], jnp.float32) if w is None else w
    observed = golden_step(case) if observed is None else observed
    return np.asarray(gradient(w, observed))


@pytest.mark.parametrize("case", ["first", "learnt", "extreme"])
def test_the_gradient_of_the_meta_loss_against_pytorch(case):
    np.testing.assert_allclose(gradient_of(case), GOLDEN[f"{case}/grad"], rtol=2e-4, atol=1e-8)


def test_a_factor_of_all_rates_changes_no_draw_so_the_gradient_along_it_is_zero():
    for case in ("first", "learnt"):
        grad, w = gradient_of(case).astype(float), GOLDEN[f"{case}/w"]
        # log sigmoid(w) has the slope 1 - sigmoid(w).
        slopes = grad * (1 + np.exp(w))
        assert abs(slopes.sum()) < 1e-5 * abs(slopes).max()


def test_the_gradient_is_zero_where_the_sampler_has_no_effect():
    still = golden_step("learnt", rate=np.array(0.0))
    assert not gradient_of("learnt", still).any()
    padding = golden_step("learnt")
    nothing = dict.fromkeys(("valid", "host_valid"), jnp.zeros(9, bool))
    assert not gradient_of("learnt", padding._replace(batch={**padding.batch, **nothing})).any()
    # Equal rows, one for all classes, that all losses treat alike.
    equal = {"features": np.ones((9, 4)), "kernel": np.zeros((4, 3)), "bias": np.zeros(3)}
    observed = golden_step("first", **equal, host_features=np.zeros((9, 4)))
    counts = jnp.zeros(3)
    loss = build_recipe(["erm"], STATS, {}).loss
    head = jax.tree.map(jnp.zeros_like, observed.before)
    labels = jnp.array([0, 1, 2] * 3)
    batch = {
        **observed.batch, "label": labels, "target": jnp.eye(3)[labels], "host_label": labels,
        "gumbel": jnp.zeros((9, 3)), **dict.fromkeys(("valid", "host_valid"), jnp.ones(9, bool)),
    }  # fmt: skip
    alike = observed._replace(
        batch=batch, before=head, variables=head,
        outputs={"features": jnp.ones((9, 4)), "host_features": jnp.ones((9, 4))},
    )  # fmt: skip
    found = np.asarray(meta_gradient(jnp.zeros(3), alike, loss, counts))
    np.testing.assert_allclose(found, 0, atol=1e-7)


def test_the_gradient_is_finite_for_extreme_parameters_and_logits():
    for w in ([-200.0, 0, 200], [300.0, 300, 300], [-300.0, -300, -300]):
        assert np.isfinite(gradient_of("learnt", w=jnp.array(w))).all()
    large = golden_step("learnt", kernel=1e4 * GOLDEN["kernel"])
    assert np.isfinite(gradient_of("learnt", large)).all()


def drawn_classes(w, rows=30_000):
    memory = {NAME: {"w": jnp.asarray(w, jnp.float32)}}
    label, entries = RECIPE.class_draw(rng.root(3), memory, rows)
    assert label.dtype == jnp.int32 and entries["gumbel"].shape == (rows, 3)
    return np.bincount(label, minlength=3) / rows


@pytest.mark.parametrize("w", [[0.0, 0, 0], [2.0, 2, 2], [-1.0, 0.5, 3], [-30.0, -30, -30]])
def test_classes_are_drawn_by_the_rate_of_their_images_and_their_number(w):
    expected = COUNTS / (1 + np.exp(-np.array(w)))
    expected /= expected.sum()
    spread = np.sqrt(expected * (1 - expected) / 30_000)
    assert (abs(drawn_classes(w) - expected) < 4 * spread).all()


def test_all_images_are_equally_likely_at_first():
    memory = RECIPE.memory[NAME].init(None)
    share = np.exp(log_rates(memory["w"], LOG_COUNTS))
    np.testing.assert_allclose(share, COUNTS / 2, rtol=1e-6)


def steps_in_numpy(params, steps, *, lr, momentum, decay, sampler_lr):
    """The head and the sampler after steps, with the draws of the step, in float64.

    The gradient is the sum over rows of -lr / B * <G, g> times the slope of the row's relaxed
    probability, with G and g the gradients of the meta loss and of the row's loss to the head.
    """
    step, state, inputs, rows = setup(RECIPE, params, lr=lr)
    fc = params["head"]["fc"]
    theta = np.vstack([fc["kernel"], fc["bias"]]).astype(float)
    images, labels, _ = data(rows=6)

    def features(index):
        pixels = images[index].reshape(6, -1) / 255 * params["body"].astype(float) - 0.2
        return np.hstack([pixels, np.ones((6, 1))])

    w, first, second, velocity = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros_like(theta)
    draw = jax.jit(lambda state: step.draw(state, inputs, rows))
    for t in range(steps):
        memory = {NAME: {"w": jnp.asarray(w, jnp.float32)}}
        drawn, added = draw(state.replace(step=jnp.int32(t), extra=memory))
        index, y = np.asarray(drawn.index), labels[np.asarray(drawn.index)]
        x, host = features(index), features(np.arange(6))
        error = softmax(x @ theta + np.log(COUNTS)) - np.eye(3)[y]
        velocity = momentum * velocity + x.T @ error / 6 + decay * theta
        theta = theta - lr * velocity
        of_meta = host.T @ (softmax(host @ theta) - np.eye(3)[labels]) / 6
        along = ((x @ of_meta) * error).sum(axis=1)
        relaxed = softmax(np.log(COUNTS / (1 + np.exp(-w))) + np.asarray(added["gumbel"], float))
        own = relaxed[np.arange(6), y][:, None]
        slope = own * (np.eye(3)[y] - relaxed) * (1 - 1 / (1 + np.exp(-w)))
        grad = -lr / 6 * along @ slope
        first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad**2
        unbiased = first / (1 - 0.9 ** (t + 1)), second / (1 - 0.999 ** (t + 1))
        w = w - sampler_lr * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    return theta, w


def test_steps_against_numpy():
    params, schedule = params_of(), {"lr": 0.3, "momentum": 0.9}
    state = after(RECIPE, params, steps=3, weight_decay=0.1, dropout_rate=0.5, **schedule)
    theta, w = steps_in_numpy(params, 3, decay=0.1, sampler_lr=0.01, **schedule)
    fc = state.params["head"]["fc"]
    np.testing.assert_allclose(fc["kernel"], theta[:-1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fc["bias"], theta[-1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.extra[NAME]["w"], w, rtol=1e-3)
    assert (abs(w) > 1e-3).all()
    np.testing.assert_array_equal(state.params["body"], params["body"])
    np.testing.assert_allclose(RECIPE.class_probs, np.full(3, 1 / 3))


def test_a_step_draws_images_of_its_classes_and_keeps_those_of_the_host():
    images, labels, _ = data(rows=6)
    valid = np.arange(6) < 5
    step, state, inputs, rows = setup(RECIPE, params_of(), valid=valid)
    seen, draw = set(), jax.jit(lambda state: step.draw(state, inputs, rows))
    for t in range(40):
        drawn, added = draw(state.replace(step=jnp.int32(t)))
        scores = np.log(COUNTS)[None] + np.asarray(added["gumbel"])
        np.testing.assert_array_equal(labels[drawn.index][:5], scores.argmax(axis=1)[:5])
        assert drawn.index[5] == rows.index[5]
        np.testing.assert_allclose(added["host_image"], images / 255, rtol=1e-6)
        np.testing.assert_array_equal(added["host_label"], labels)
        np.testing.assert_array_equal(added["host_valid"], valid)
        seen |= set(np.asarray(drawn.index)[:5].tolist())
    assert seen == {*range(6)}


def test_the_rows_of_the_host_are_augmented_with_a_key_of_their_own():
    def augment(key, images):
        return images + rng.uniform(key, (len(images), 1, 1, 1))

    step, state, inputs, rows = setup(RECIPE, params_of())
    plain = step.draw(state, inputs, rows)
    builder = dataclasses.replace(step.batch_builder, augment=augment)
    drawn, added = dataclasses.replace(step, batch_builder=builder).draw(state, inputs, rows)
    np.testing.assert_array_equal(drawn.index, plain[0].index)
    found = np.asarray(added["host_image"] - plain[1]["host_image"])[:, 0, 0, 0]
    keys = step.keys_at(state.step)
    others = [*keys.values(), *rng.split(keys["draws"], 2), rng.at(keys["draws"], 0)]
    for other in others:
        assert abs(found - np.asarray(rng.uniform(other, (6,)))).max() > 1e-3
    assert found.std() > 0.01


@pytest.mark.parametrize("bn", ["frozen", "shifted"])
def test_padding_changes_no_part_of_a_step(bn):
    recipe = build_recipe(["meta_sampler"], STATS, {"meta_sampler": {"bn": bn}})
    step, state, inputs, rows = setup(recipe, params_of(), valid=np.arange(6) < 4)
    other = Rows(rows.index.at[4:].set(jnp.array([1, 2])), rows.valid)
    update = jax.jit(step.update)
    one, changed = (update(state, inputs, each) for each in (rows, other))
    jax.tree.map(np.testing.assert_array_equal, one, changed)


def test_a_step_of_padding_alone_leaves_the_sampler():
    step, state, inputs, rows = setup(RECIPE, params_of())
    update = jax.jit(step.update)
    state, *_ = update(state, inputs, rows)
    before = state.extra[NAME]
    state, *_ = update(state, inputs, Rows(rows.index, jnp.zeros(6, bool)))
    jax.tree.map(np.testing.assert_array_equal, state.extra[NAME], before)
    assert before["w"].any()


def test_without_a_learning_rate_the_sampler_stays():
    observed = golden_step("first")
    for rate in (0.0, 0.01):
        given = {"meta_sampler": {"sampler_lr": rate}}
        memory = build_recipe(["meta_sampler"], STATS, given).memory[NAME]
        new = memory.update(memory.init(None), observed)
        # The first step of Adam has the length of the learning rate.
        np.testing.assert_allclose(
            new["w"], -rate * np.sign(GOLDEN["first/grad"]), rtol=1e-4, atol=1e-9
        )


def test_a_class_alone_has_nothing_to_learn():
    stats = dataclasses.replace(STATS, class_counts=np.array([5]))
    recipe = build_recipe(["meta_sampler"], stats, {})
    given = {name: GOLDEN[name][..., :1] for name in ("kernel", "bias", "gumbel")}
    given |= {f"first/{name}": GOLDEN[f"first/{name}"][..., :1] for name in ("kernel", "bias")}
    labels = {"first/label": np.zeros(9, int), "host_label": np.zeros(9, int)}
    observed = golden_step("first", **given, **labels)
    observed.batch["target"] = jnp.ones((9, 1))
    memory = recipe.memory[NAME]
    new = memory.update(memory.init(None), observed)
    assert new["w"].shape == (1,) and not new["w"].any()
    label, _ = recipe.class_draw(rng.root(0), {NAME: new}, 6)
    assert not label.any()


def test_appended_noise_has_no_part_in_the_sampler():
    observed = golden_step("learnt")
    longer = {n: jnp.concatenate([observed.batch[n]] * 2) for n in ("label", "target", "valid")}
    features = jnp.concatenate([observed.outputs["features"], jnp.full((9, 4), 7.0)])
    more = observed._replace(
        batch={**observed.batch, **longer}, outputs={**observed.outputs, "features": features}
    )
    np.testing.assert_array_equal(gradient_of("learnt", more), gradient_of("learnt", observed))
    recipe = build_recipe(["append", "meta_sampler"], STATS, {"append": {"share": 0.5}})
    step, state, inputs, rows = setup(recipe, params_of())
    new, *_ = jax.eval_shape(step.update, state, inputs, rows)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)


def test_running_statistics_move_by_both_kinds_of_rows():
    recipe = build_recipe(["meta_sampler"], STATS, {})
    params = params_of()
    step, state, inputs, rows = setup(recipe, params)
    drawn, _ = step.draw(state, inputs, rows)
    new, *_ = jax.jit(step.update)(state, inputs, rows)
    means = [
        (np.asarray(inputs.images)[np.asarray(index)].reshape(6, -1) / 255 * params["body"]).mean(0)
        for index in (drawn.index, rows.index)
    ]
    expected = 0.25 * 0.2 + 0.25 * means[0] + 0.5 * means[1]
    np.testing.assert_allclose(new.batch_stats["mean"], expected, rtol=1e-5)


def test_another_loss_or_draw_beside_it_is_refused_by_name():
    for other in ("vs", "crt", "decoupled_softmax"):
        with pytest.raises(ConfigError, match=f"methods {other} and meta_sampler both set"):
            build_recipe([other, "meta_sampler"], STATS, {})
