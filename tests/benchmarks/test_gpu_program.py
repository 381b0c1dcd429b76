"""Counts of a stored GPU program by hand, bounds of its time, and a compilation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_program import __main__ as command
from benchmarks.gpu_program.absent_gpu import CHIPS
from benchmarks.gpu_program.hlo import parse, size
from benchmarks.gpu_program.kernels import Kernel, kernels
from benchmarks.gpu_program.programs import Line
from benchmarks.gpu_program.roofline import bounds, predicted
from purenoise_jax.methods import build_recipe
from tests.linear_step import STATS

TEXT = (Path(__file__).parent.parent / "goldens/gpu_program.txt").read_text()
FLOAT = 4


@pytest.fixture(scope="module")
def found():
    return {kernel.name: kernel for kernel in kernels(parse(TEXT))}


def test_the_step_is_the_body_of_the_loop(found):
    program = parse(TEXT)
    assert program.step().name != program.entry
    assert len(found) == 12
    kinds = [kernel.kind for kernel in found.values()]
    assert kinds.count("convolution") == 2 and kinds.count("fusion") == 10


def test_convolutions_by_hand(found):
    forward, backward = (k for k in found.values() if k.kind == "convolution")
    x, y, kernel = (8 * 16 * 16 * c * FLOAT for c in (3, 16, 0.0))
    kernel = 3 * 3 * 3 * 16 * FLOAT
    assert (forward.read, forward.written) == (x + kernel, y)
    assert (backward.read, backward.written) == (x + y, kernel)
    # Two for each of the 27 weights that an output adds up.
    assert forward.flops == backward.flops == 2 * 8 * 16 * 16 * 16 * 27


def test_a_slice_of_the_data_set_counts_as_the_slice(found):
    batch = found["loop_convert_fusion"]
    assert batch.read == 8 * 16 * 16 * 3 + FLOAT and batch.written == 8 * 16 * 16 * 3 * FLOAT
    assert batch.read < size("u8[4096,16,16,3]{3,2,1,0}") / 100


def test_an_update_in_place_counts_as_the_update(found):
    update = found["loop_dynamic_update_slice_fusion"]
    assert update.read == 2 * FLOAT and update.written == FLOAT


def test_kernels_are_counted_under_their_part_of_the_step(found):
    assert found["loop_select_fusion"].origin == "update and guard's choice"
    assert found["gemm_fusion_dot_general.3"].origin == "head and loss, forward"
    assert found["gemm_fusion_dot"].origin == "head and loss, backward"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f32[]", 4),
        ("bf16[2,3]{1,0}", 12),
        ("pred[7]", 7),
        ("(f32[2]{0}, /*index=1*/s64[3]{0:T(8)}, token[])", 32),
        ("f8e4m3fn[4,4]", 16),
    ],
)
def test_sizes_of_types(text, expected):
    assert size(text) == expected


def test_loops_within_a_step_count_as_often_as_they_run_and_conditionals_by_their_dearest_branch():
    text = """
%small (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %n = f32[4]{0} negate(%p)
}

%large (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %a = f32[4]{0} abs(%p)
  ROOT %n = f32[4]{0} negate(%a)
}

ENTRY %main (p: f32[4], i: s32[]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %i = s32[] parameter(1)
  %w = f32[4]{0} while(%p), condition=%c, body=%small, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %c = f32[4]{0} conditional(%i, %w, %w), branch_computations={%small, %large}
}
"""
    assert [k.name for k in kernels(parse(text))] == ["n", "n", "n", "a", "n"]
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("HloModule nothing")


def test_bounds_by_hand():
    """On an H100: 3.35 TB/s and 989 TFLOP/s in bfloat16."""
    memory = Kernel("m", "fusion", "other", 2_000_000, 1_350_000, 0, "")
    arithmetic = Kernel("a", "convolution", "convolution", 0, 0, 989_000_000_000, "")
    found = bounds([memory, arithmetic, memory], "H100", "bfloat16", launch_us=600, graph_us=2)
    assert found == pytest.approx(
        {
            "arithmetic_ms": 1.0,
            "memory_ms": 0.002,
            "work_ms": 1.002,
            "launch_ms": 1.8,
            "step_ms": 1.8,
            # A launch takes longer than the work of the first and the last.
            "graph_step_ms": 1.004,
        }
    )


def test_what_stands_beside_a_measured_time():
    found = predicted(TEXT, "NVIDIA H100 80GB HBM3", "float32")
    limits = bounds(kernels(parse(TEXT)), "H100", "float32")
    assert found == {
        "kernels": 12,
        "predicted_ms": limits["step_ms"],
        "predicted_graph_ms": limits["graph_step_ms"],
    }
    assert predicted(TEXT, "cpu", "float32") == predicted(TEXT, "Tesla T4", "bfloat16") == {}


def test_the_lines_of_the_table():
    options = command.parse(["--model", "resnet32", "--dtype", "bfloat16"])
    names = [line.name for line in command.lines(options)]
    assert names[0] == "resnet32 bfloat16 flax erm"
    assert names[-2:] == ["resnet32 bfloat16 dar_bn open", "resnet32 bfloat16 dar_bn open no guard"]
    options = command.parse(
        ["--model", "resnet8", "--dtype", "float32", "--norm", "bn", "dar_bn",
         "--methods", "open", "open+sam", "--no_references", "--devices", "8"]
    )  # fmt: skip
    lines = list(command.lines(options))
    assert [line.methods for line in lines] == [("open",), ("open", "sam")] * 2
    assert lines[0] == Line("resnet8", "bn", ("open",), "float32", devices=8)
    assert set(CHIPS) == {"H100", "H200"}
    for wrong in (["--norm", "foo"], ["--batch", "0"], ["--devices", "-1"]):
        with pytest.raises(SystemExit):
            command.parse(wrong)


def test_a_step_that_cannot_be_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(command, "compile_line", lambda *_: build_recipe(["foo"], STATS, {}))
    assert command.main(["--methods", "foo", "--no_references"]) == command.EXIT_CONFIG
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "'foo'" in message


@pytest.mark.slow
def test_a_machine_without_the_plugin_is_told_so():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_program", "--model", "resnet8"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode == 0:
        pytest.skip("this environment has JAX's CUDA plugin")
    assert done.returncode == command.EXIT_CANNOT
    assert done.stderr.count("\n") == 1 and "[cuda12]" in done.stderr


@pytest.mark.slow
def test_programs_of_training_compile_and_stay_short(tmp_path):
    """In an environment with the extra [cuda12], which $PURENOISE_JAX_CUDA_PYTHON names."""
    python = os.environ.get("PURENOISE_JAX_CUDA_PYTHON")
    if not python:
        pytest.skip("PURENOISE_JAX_CUDA_PYTHON names no Python with the extra [cuda12]")
    out = tmp_path / "program.json"
    arguments = ["--model", "resnet8", "--dtype", "bfloat16", "--norm", "bn", "dar_bn"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    subprocess.run(
        [python, "-m", "benchmarks.gpu_program", *arguments, "--out", str(out)],
        check=True,
        env=environment,
    )
    rows = {r["name"]: r for r in json.loads(out.read_text())["read_off_the_program_not_measured"]}
    plain, bn, dar, unguarded = (
        rows[f"resnet8 bfloat16 {name}"]
        for name in ("flax erm", "bn open", "dar_bn open", "dar_bn open no guard")
    )
    assert bn["convolutions"] == dar["convolutions"] == 20
    assert bn["flops"] == dar["flops"] == plain["flops"]
    # Of seven norms and nine kernels; with slack for another version of the compiler.
    assert dar["kernels"] < 1.15 * bn["kernels"] and dar["kernels"] < plain["kernels"]
    assert dar["kernels"] - unguarded["kernels"] < 20
    assert dar["bytes"] < 1.02 * plain["bytes"]
