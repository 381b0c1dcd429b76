"""The learning rate of the papers' recipe, and cosines against PyTorch's schedulers."""

from pathlib import Path

import numpy as np
import pytest

from purenoise_jax.config.fields import default_config
from purenoise_jax.methods.schedules import by_step, learning_rates

GOLDENS = dict(np.load(Path(__file__).parents[1] / "goldens" / "sgd.npz"))


def paper():
    opt = default_config().optimizer
    return learning_rates(
        200,
        learning_rate=opt.learning_rate,
        warmup_epochs=opt.warmup_epochs,
        milestones=opt.milestones,
        gamma=opt.gamma,
    )


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.02), (1, 0.04), (2, 0.06), (3, 0.08), (4, 0.1), (5, 0.1), (159, 0.1), (160, 1e-3),
     (179, 1e-3), (180, 1e-5), (199, 1e-5)],
)  # fmt: skip
def test_rate_at_the_papers_epochs(epoch, rate):
    np.testing.assert_allclose(paper()[epoch], rate, rtol=1e-12)


def test_rate_is_constant_within_an_epoch():
    lr = by_step(paper(), steps_per_epoch=97)
    assert [round(float(lr(s)), 6) for s in (0, 96, 97, 160 * 97 - 1, 160 * 97)] == [
        0.02, 0.02, 0.04, 0.1, 0.001]  # fmt: skip
    assert float(lr(200 * 97)) == pytest.approx(1e-5), "evaluation after the end"


def test_no_warmup_and_no_milestones_is_constant():
    rates = learning_rates(4, learning_rate=0.5, warmup_epochs=0, milestones=(), gamma=0.1)
    assert rates.tolist() == [0.5] * 4


def test_a_warmup_longer_than_the_run_is_cut_off():
    rates = learning_rates(2, learning_rate=1.0, warmup_epochs=4, milestones=(1,), gamma=0.1)
    assert rates.tolist() == [0.25, 0.5]


def cosine(num_epochs, warmup_epochs=0):
    return learning_rates(
        num_epochs,
        learning_rate=0.1,
        warmup_epochs=warmup_epochs,
        milestones=(),
        gamma=0.01,
        schedule="cosine",
    )


@pytest.mark.parametrize(("epochs", "warmup"), [(10, 0), (12, 3), (200, 5)])
def test_a_cosine_against_pytorch(epochs, warmup):
    """Goldens of `goldens/make_torch_goldens.py`."""
    expected = GOLDENS[f"cosine_{epochs}_{warmup}"]
    np.testing.assert_allclose(cosine(epochs, warmup), expected, rtol=1e-9)


def test_a_cosine_falls_from_the_full_rate_to_half_of_it_in_the_middle():
    rates = cosine(8)
    np.testing.assert_allclose(rates[[0, 4]], [0.1, 0.05], rtol=1e-12)
    # The curve is odd about its middle.
    np.testing.assert_allclose(rates[1:] + rates[:0:-1], 0.1, rtol=1e-12)
    assert (np.diff(rates) < 0).all() and rates[-1] > 0


def test_short_cosines():
    assert cosine(1).tolist() == [0.1]
    np.testing.assert_allclose(cosine(2, 2), [0.05, 0.1])
    np.testing.assert_allclose(cosine(2, 4), [0.025, 0.05])
