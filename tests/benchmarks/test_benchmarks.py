"""The benchmarks: timing, counts and ratios, and suites that fail without ending the command."""

import json
import re
import shlex
import subprocess
from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from benchmarks import chips, convolutions, norms, overhead, run, saving, scaling, timing
from benchmarks.bench import Bench
from benchmarks.jax_steps import step_program
from benchmarks.profile import kind_of
from benchmarks.suites import add_ratios
from purenoise_jax.models import MODELS, create_model
from purenoise_jax.runtime.flops import flops_of
from tests.tiny import TinyNet

pytestmark = pytest.mark.slow


def test_programs_are_timed_in_turn_after_a_first_round():
    order = []
    programs = {
        name: timing.Program(lambda name=name: order.append(name), steps=2) for name in "abc"
    }
    found = timing.interleave(programs, rounds=4, seconds=60, pause=0)
    rounds = ["".join(order[i : i + 3]) for i in range(0, 15, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds) and len(order) == 15
    assert len(set(rounds)) > 2
    assert [row["rounds"] for row in found.values()] == [4, 4, 4]


def test_three_rounds_are_run_even_without_time():
    calls = []
    found = timing.interleave(
        {"a": timing.Program(lambda: calls.append(0))}, rounds=9, seconds=0, pause=0
    )
    assert len(calls) == 4 and found["a"]["rounds"] == 3


def test_a_time_is_a_median_of_milliseconds_per_step():
    assert timing.spread([0.001, 0.002, 0.009]) == {
        "ms": 2.0, "ms_low": 1.5, "ms_high": 5.5, "rounds": 3, "samples": [1.0, 2.0, 9.0],
    }  # fmt: skip


def test_flops_of_a_convolution_and_a_product_by_hand():
    x, w = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))

    def call(x, w, head):
        y = jax.lax.conv_general_dilated(
            x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.jit(lambda y: y.mean((1, 2)) @ head)(y)

    expected = 2 * (2 * 4 * 4 * 5) * (3 * 3 * 3) + 2 * 2 * 5 * 7
    assert flops_of(call, x, w, jnp.zeros((5, 7))) == expected


@pytest.mark.parametrize(("model", "giga"), [("resnet32", 0.0689), ("wrn28_10", 5.246)])
def test_multiply_adds_of_the_papers_networks(model, giga):
    network = create_model(model, num_classes=10)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))
    flops = flops_of(lambda v, x: network.apply(v, x, train=False)[0], variables, images)
    np.testing.assert_allclose(flops / 2e9, giga, rtol=2e-3)


def test_limits_of_a_known_and_of_an_unknown_chip():
    # An H200 needs at least one millisecond for 989 GFLOP in bfloat16.
    found = chips.limits(989e9, 4.8e9, "bfloat16", "NVIDIA H200", 2.0)
    assert found == pytest.approx(
        {"tflops": 494.5, "arithmetic_ms": 1.0, "utilisation": 0.5, "memory_ms": 1.0}
    )
    assert chips.limits(989e9, 4.8e9, "bfloat16", "cpu", 2.0) == {"tflops": 494.5}
    assert chips.peak_of("NVIDIA A100-SXM4-80GB")["memory"] == 2.0e12


def test_every_form_of_dar_bn_gives_the_same_numbers():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1, 2, (8, 4, 4, 3)), jnp.float32)
    noise = jnp.asarray(np.arange(8) % 3 == 1)
    valid = jnp.asarray(np.arange(8) < 7)
    ct = jnp.asarray(rng.normal(size=x.shape), jnp.float32) * valid[:, None, None, None]
    results = []
    for form in norms.FORMS.values():
        layer = form()
        variables = layer.init(jax.random.key(0), x)

        def call(params, x, layer=layer, variables=variables):
            y, updated = layer.apply(
                {**variables, "params": params}, x, noise, valid, mutable=["batch_stats"]
            )
            return (y * ct).sum(), (y[:7], updated)

        grads, out = jax.grad(call, (0, 1), has_aux=True)(variables["params"], x)
        results.append((grads, out[0], out[1]["batch_stats"]["mean"]))
    for other in results[1:]:
        chex.assert_trees_all_close(results[0], other, rtol=1e-4, atol=1e-5)


def test_only_the_form_with_raw_second_moments_is_inexact_for_a_large_mean():
    errors = {name: norms.errors(form, 1000.0, "float32") for name, form in norms.FORMS.items()}
    assert errors.pop("dar_bn: masked sums") > 1e-2
    assert max(errors.values()) < 1e-3
    assert norms.errors(norms.FORMS["dar_bn: per-image sums"], 4.0, "bfloat16") < 1e-5


def test_all_convolutions_of_a_network_are_found():
    found = convolutions.shapes_of("resnet32")
    assert sum(found.values()) == 31
    assert found[convolutions.Shape(32, 16, 16, 3, 1, 1)] == 10
    assert str(convolutions.Shape(32, 16, 32, 3, 2, 1)) == "32x32, 16 -> 32, kernel 3, stride 2"


def test_instructions_have_a_purpose():
    assert kind_of("transpose_copy_fusion.3") == "transposes for weight gradients"
    assert kind_of("convolution-base-dilated") == "convolutions"
    assert kind_of("wrapped_convert") == "other"


def test_ratios_are_over_the_best_of_the_same_norm():
    # All are twice as slow in the second round, but ratios are within a round.
    times = {
        "jax bn": 4.0,
        "jax dar_bn": 6.0,
        "torch bn plain": 2.0,
        "torch dar_bn plain": 8.0,
        "torch dar_bn compiled": 5.0,
    }
    rows = [{"name": name, "ms": t, "samples": [t, 2 * t]} for name, t in times.items()]
    add_ratios(rows)
    assert rows[1]["over_bn"] == 1.5
    assert rows[1]["over_torch_best"] == 1.2 and rows[1]["torch_best"] == "torch dar_bn compiled"
    assert rows[1]["over_torch_plain"] == 0.75
    assert rows[0]["over_torch_best"] == 2.0


def test_a_data_set_must_stream_if_it_exceeds_the_memory_beside_the_step():
    rows = {row["name"]: row for row in scaling.memory(10**9, 10**9 + 100_000 * 3072)}
    assert rows["CIFAR-10"]["fits"] and rows["CIFAR-10"]["streams_above_images"] == 100_000
    assert not rows["ImageNet-LT at 224"]["fits"]
    assert all(row["fits"] is None for row in scaling.memory(0, None))


def options(*argv):
    return run.parse(list(argv))


@pytest.mark.parametrize("flag", ["--rounds", "--batch", "--epochs", "--steps_per_call"])
def test_counts_of_zero_are_refused(flag, capsys):
    with pytest.raises(SystemExit):
        options(flag, "0")
    assert f"{flag}: 0 must be at least 1" in capsys.readouterr().err


def test_a_failed_measurement_is_reported_and_skipped():
    bench = Bench(options(), Console(quiet=True))

    def broken():
        raise MemoryError("all of it\nand more")

    assert bench.attempt("a step", broken) is None
    assert bench.attempt("another", lambda: 3) == 3
    assert bench.skipped == [{"name": "a step", "why": "MemoryError: all of it"}]


def test_no_measurement_begins_after_the_time_limit():
    bench = Bench(options("--minutes", "0"), Console(quiet=True))
    assert bench.attempt("a step", lambda: 3) is None
    assert "--minutes=0 are over" in bench.skipped[0]["why"]


def test_the_command_writes_its_measurements_and_the_missing_ones(tmp_path, capsys, monkeypatch):
    # Without pauses and with little work: only a smoke test.
    monkeypatch.setattr(saving, "PAUSE_SECONDS", 0)
    monkeypatch.setitem(timing.interleave.__kwdefaults__, "pause", 0)
    assert MODELS["tiny"].func is TinyNet
    monkeypatch.setattr(overhead.between_epochs, "__defaults__", (600, "tiny"))
    out = tmp_path / "speed.json"
    command = "--suite steps chunks overhead guard save memory profile --dtype float32 --torch_forms --model tiny --batch 4 --rounds 1 --eval_images 9 --epochs 3"
    assert run.main([*command.split(), "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    names = {row["name"] for row in record["rows"]}
    assert {"bare step", "with noise and augmentation", "evaluation, tiny"} <= names
    assert {"jax bn", "jax aux_bn", "jax dar_bn", "jax flax.linen.BatchNorm"} <= names
    assert {"with guard", "without guard", "orbax alone", "what the loop waits"} <= names
    assert "steps per call" in {row["name"] for row in record["not_measured"]}
    assert record["environment"]["jax"] == jax.__version__
    assert "overhead: tiny" in capsys.readouterr().out


def test_the_gpu_script_names_existing_options_and_tests():
    script = (Path(run.__file__).parent / "gpu.sh").read_text()
    command = script.partition("benchmarks.run ")[2].partition("2>&1")[0]
    asked = run.parse(shlex.split(command.replace("\\\n", " ")))
    assert asked.minutes < 8 and "steps" in asked.suite
    tests = re.findall(r"tests/[\w/]+\.py", script)
    assert tests
    for test in tests:
        assert (Path(__file__).parents[2] / test).is_file()
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0


def test_a_sharded_step_is_the_same_work():
    one, two = (step_program("tiny", batch_size=8, devices=n).facts for n in (1, 2))
    assert one["flops"] == two["flops"]
    np.testing.assert_allclose(2 * two["executed_flops"], one["executed_flops"], rtol=0.05)


def test_pytorch_networks_have_as_many_parameters():
    torch_models = pytest.importorskip("benchmarks.torch_models", reason="needs PyTorch")
    for model in ("resnet32", "wrn16_4"):
        ours = create_model(model, num_classes=10, norm="dar_bn")
        images = jnp.zeros((1, 32, 32, 3))
        params = jax.eval_shape(partial(ours.init, train=False), jax.random.key(0), images)
        theirs = torch_models.create(model, "dar_bn", 10)
        count = sum(leaf.size for leaf in jax.tree.leaves(params["params"]))
        assert count == sum(p.numel() for p in theirs.parameters())
    assert set(torch_models.SHAPES) < set(MODELS)
    with pytest.raises(
        ValueError, match="resnet18 is not among the networks in PyTorch: resnet8, "
    ):
        torch_models.create("resnet18", "dar_bn", 10)
