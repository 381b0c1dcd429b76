"""The suites of measurements: one function each, which adds rows to a `Bench`."""

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import convolutions, method_costs, norms, overhead, profile, saving, scaling
from benchmarks.bench import TIME, Bench, Row, name_of, number
from benchmarks.chips import limits
from benchmarks.feed_suites import large_trees, rates_of_feeds
from benchmarks.jax_steps import AUGMENTATIONS, FlaxBatchNorm, step_program
from benchmarks.timing import Program, over
from purenoise_jax.runtime.compiler import CPU_OPTIONS

try:
    from benchmarks import torch_steps
except ImportError as error:
    torch_steps = None  # type: ignore[assignment]
    NO_TORCH = f"PyTorch cannot be imported ({error}); pip install -e '.[bench]'"

CPU_BATCH = {"wrn16_4": 32, "wrn28_10": 8}


def groups(bench: Bench) -> Iterator[tuple[str, str, int]]:
    """Yields network, dtype and batch size of the steps to time, the most informative first."""
    options = bench.options
    models = options.model or ["resnet32", *(["wrn16_4"] if bench.on_cpu else []), "wrn28_10"]
    dtypes = options.dtype or ["float32", "bfloat16"]
    if not bench.on_cpu:
        models, dtypes = models[::-1], dtypes[::-1]
    for dtype in dtypes:
        for model in models:
            yield model, dtype, batch_for(bench, model)


def batch_for(bench: Bench, model: str) -> int:
    """The batch size for a network."""
    return bench.options.batch or (CPU_BATCH.get(model, 128) if bench.on_cpu else 128)


def first_model(bench: Bench) -> str:
    """The network for the suites that time only one."""
    return (bench.options.model or ["resnet32"])[0]


def steps(bench: Bench) -> None:
    """A training step of every network, dtype and norm, beside PyTorch's."""
    if torch_steps is None:
        bench.skip("steps in PyTorch", NO_TORCH)
    for model, dtype, batch in groups(bench):
        group = f"{model}, {dtype}, batch {batch}"
        common: dict[str, Any] = {"batch_size": batch, "steps_per_call": bench.steps_per_call}
        ours: dict[str, Any] = {f"jax {norm}": norm for norm in bench.options.norm}
        if "bn" in ours.values():
            ours["jax flax.linen.BatchNorm"] = FlaxBatchNorm
        makers: dict[str, Any] = {
            name: partial(step_program, model, norm, dtype, **common) for name, norm in ours.items()
        }
        if torch_steps is not None:
            for form in bench.options.torch_forms:
                for norm in bench.options.norm:
                    makers[f"torch {norm} {form}"] = partial(
                        torch_steps.step_program,
                        model,
                        norm,
                        dtype,
                        form=form,
                        platform=bench.device.platform,
                        **common,
                    )
        rows = bench.time("steps", group, bench.prepare(makers, group))
        flops = next((row["flops"] for row in rows if "flops" in row), None)
        for row in rows:
            row |= {"model": model, "dtype": dtype}
            if flops:
                kind = bench.device.device_kind
                traffic = row.get("traffic")
                row |= limits(flops, traffic, dtype, kind, row["ms"])
        add_ratios(rows)
        bench.table(
            f"a training step: {group}; time over jax bn, over PyTorch's best and plain form",
            rows,
            TIME
            | {
                "images/s": number("images_per_second", "{:,.0f}"),
                "/ bn": number("over_bn", "{:.2f}"),
                "/ best": number("over_torch_best", "{:.2f}"),
                "/ plain": number("over_torch_plain", "{:.2f}"),
                "compile s": number("compile_seconds"),
                "MiB": number("memory_bytes", "{:,.0f}", 2**-20),
                "TFLOP/s": number("tflops", "{:.2f}"),
            }
            | ({} if bench.on_cpu else CHIP),
        )


CHIP = {
    "of peak": number("utilisation", "{:.0%}"),
    "by arithmetic": number("arithmetic_ms", "{:.2f} ms"),
    "by memory": number("memory_ms", "{:.2f} ms"),
    "kernels": number("kernels", "{:,.0f}"),
    "predicted": number("predicted_ms", "{:.2f} ms"),
    "in a graph": number("predicted_graph_ms", "{:.2f} ms"),
}


def add_ratios(rows: list[Row]) -> None:
    """Adds to each JAX row its time over that of others in the group; below 1 is faster."""
    by_name = {row["name"]: row for row in rows}
    for row in rows:
        framework, norm, *_ = row["name"].split()
        if framework != "jax":
            continue
        if "jax bn" in by_name:
            row["over_bn"] = over(row, by_name["jax bn"])
        norm = "bn" if norm.startswith("flax") else norm
        others = [other for other in rows if other["name"].startswith(f"torch {norm} ")]
        if others:
            best = min(others, key=lambda other: other["ms"])
            row |= {"over_torch_best": over(row, best), "torch_best": best["name"]}
        plain = by_name.get(f"torch {norm} plain")
        if plain is not None:
            row["over_torch_plain"] = over(row, plain)


def norm_forms(bench: Bench) -> None:
    """Other ways to compute DAR-BN: time and accuracy."""
    model = first_model(bench)
    batch = batch_for(bench, model)
    group = f"{model}, float32, batch {batch}"
    wanted: dict[str, Any] = {"bn": "bn", "flax.linen.BatchNorm": FlaxBatchNorm} | norms.FORMS
    makers: dict[str, Any] = {
        name: partial(
            step_program, model, norm, batch_size=batch, steps_per_call=bench.steps_per_call
        )
        for name, norm in wanted.items()
    }
    rows = bench.time("norms", group, bench.prepare(makers, group))
    base = next((row for row in rows if row["name"] == "bn"), None)
    for row in rows:
        row["over_bn"] = over(row, base) if base else None
        form = norms.FORMS.get(row["name"])
        if form is not None:
            row["error_mean_0"] = norms.errors(form, 0.0, "float32")
            row["error_mean_1000"] = norms.errors(form, 1000.0, "float32")
            row["error_bfloat16"] = norms.errors(form, 4.0, "bfloat16")
    bench.table(
        f"ways to compute DAR-BN: {group}; largest error against float64",
        rows,
        TIME
        | {
            "/ bn": number("over_bn", "{:.2f}"),
            "mean 0": number("error_mean_0", "{:.0e}"),
            "mean 1000": number("error_mean_1000", "{:.0e}"),
            "bfloat16, mean 4": number("error_bfloat16", "{:.0e}"),
        },
    )


def chunks(bench: Bench) -> None:
    """Time of a step by the number of steps per call."""
    model, dtype, batch = next(groups(bench))
    if bench.on_cpu:
        bench.skip(
            "steps per call",
            "on a CPU only one, because convolutions in a loop are many times slower",
        )
        return
    group = f"{model}, {dtype}, batch {batch}"
    makers: dict[str, Any] = {
        f"{count} steps a call": partial(
            step_program,
            model,
            "dar_bn",
            dtype,
            batch_size=batch,
            steps_per_call=count,
            calls=50 // count,
        )
        for count in (1, 5, 10, 50)
    }
    rows = bench.time("chunks", group, bench.prepare(makers, group))
    bench.table(f"steps per call: {group}", rows, TIME)


# Sets of compiler options by platform; {} is the compiler's default.
COMPILER_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "nothing": {},
        "no YNNPACK convolutions": {"xla_cpu_experimental_ynn_fusion_type": ""},
        "keep barriers": {"xla_disable_hlo_passes": "cse_barrier_expander"},
        "both, as training does": CPU_OPTIONS,
    },
    "gpu": {
        "nothing, as training does": {},
        "convolutions NHWC": {"xla_gpu_force_conv_nhwc": True},
        "convolutions NCHW": {"xla_gpu_force_conv_nchw": True},
        "hide latency": {"xla_gpu_enable_latency_hiding_scheduler": True},
    },
}


def compiler(bench: Bench) -> None:
    """Time of a step by compiler options."""
    model, dtype, batch = next(groups(bench))
    group = f"{model}, {dtype}, batch {batch}"
    makers: dict[str, Any] = {
        name: partial(
            step_program,
            model,
            dtype=dtype,
            batch_size=batch,
            steps_per_call=bench.steps_per_call,
            options=options,
        )
        for name, options in COMPILER_OPTIONS.get(bench.device.platform, {}).items()
    }
    rows = bench.time("compiler", group, bench.prepare(makers, group))
    columns = TIME | {"compile s": number("compile_seconds")}
    bench.table(f"a step by compiler options: {group}", rows, columns)


def overheads(bench: Bench) -> None:
    """Overhead over the bare step and over the bare forward pass."""
    model = first_model(bench)
    batch = batch_for(bench, model)
    kinds: dict[str, dict[str, Any]] = {
        "bare step": {"noise": "given"},
        "with noise drawn": {"noise": "drawn"},
        "with noise and augmentation": {"noise": "drawn", "augment": AUGMENTATIONS},
    }
    common: dict[str, Any] = {"batch_size": batch, "steps_per_call": bench.steps_per_call}
    makers: dict[str, Any] = {
        name: partial(step_program, model, **common, **settings) for name, settings in kinds.items()
    }
    group = f"{model}, batch {batch}"
    rows = bench.time("overhead", group, bench.prepare(makers, group))
    bare = next((row for row in rows if row["name"] == "bare step"), None)
    once = bench.attempt("between two epochs", overhead.between_epochs, bench.options.epochs)
    if once is not None:
        row = {"suite": "overhead", "group": "epoch", "name": "between two epochs, once"} | once
        bench.rows.append(row)
        rows.append(row)
    for row in rows:
        if bare and row["name"].startswith("with"):
            row["overhead"] = over(row, bare) - 1
        if bare and row["name"].startswith("between"):
            row["overhead"] = row["ms"] / (bare["ms"] * overhead.EPOCH_IMAGES / batch)

    count = bench.options.eval_images
    made = bench.attempt("evaluation", overhead.evaluation, model, count)
    found = bench.time("overhead", f"evaluation of {count:,} images", made or {})
    forward = next((row for row in found if row["name"].startswith("bare")), None)
    for row in found:
        if forward and row["name"].startswith("evaluation"):
            row["overhead"] = over(row, forward) - 1
    bench.table(
        f"overhead: {group}",
        rows + found,
        TIME | {"on top": number("overhead", "{:+.1%}")},
    )


def saves(bench: Bench) -> None:
    """Cost of a manifest on top of that of writing a checkpoint."""
    columns = TIME | {
        "MB": number("megabytes", "{:,.0f}"),
        "/ alone": number("over_alone", "{:.3f}"),
    }
    for model in bench.options.model or ("resnet32", "wrn28_10"):
        seconds = min(240.0, max(bench.left(), 1))
        found = bench.attempt(f"saving {model}", saving.saves, model, bench.options.rounds, seconds)
        bench.table(f"saving a checkpoint: {model}", bench.add("save", model, found), columns)


def guards(bench: Bench) -> None:
    """Cost of the check that a step's result is finite."""
    model, dtype, batch = next(groups(bench))
    group = f"{model}, {dtype}, batch {batch}"
    common: dict[str, Any] = {
        "dtype": dtype,
        "batch_size": batch,
        "steps_per_call": bench.steps_per_call,
        "noise": "drawn",
        "augment": ("flip", "crop"),
    }
    makers: dict[str, Any] = {
        name: partial(step_program, model, guard=guard, **common)
        for name, guard in (("without guard", False), ("with guard", True))
    }
    rows = bench.time("guard", group, bench.prepare(makers, group))
    bare = next((row for row in rows if row["name"] == "without guard"), None)
    for row in rows:
        row["overhead"] = over(row, bare) - 1 if bare and row is not bare else None
    columns = TIME | {
        "on top": number("overhead", "{:+.2%}"),
        "compile s": number("compile_seconds"),
        "MiB": number("memory_bytes", "{:,.0f}", 2**-20),
    }
    bench.table(f"a step with and without the check for finite results: {group}", rows, columns)


def starts(bench: Bench) -> None:
    """Time from the start of Python to the end of the first step."""
    model = first_model(bench)
    rows = bench.add("start", model, bench.attempt("start", overhead.start, model))
    bench.table(
        "from the start of Python to the end of the first step, in seconds",
        rows,
        {
            "": name_of,
            "imports": number("import_seconds"),
            "first step": number("first_step_seconds"),
        },
    )


def scalings(bench: Bench) -> None:
    """Growth of the time of a step with batch, width, image size and classes."""
    columns = TIME | {
        "growth": number("growth", "{:.2f}"),
        "images/s": number("images_per_second", "{:,.0f}"),
        "MiB": number("memory_bytes", "{:,.0f}", 2**-20),
        "compile s": number("compile_seconds"),
    }
    for name in scaling.AXES:
        seconds = min(60.0, max(bench.left(), 1))
        found = bench.attempt(
            f"growth with {name}", scaling.axis, name, bench.options.rounds, seconds
        )
        rows = bench.add("scaling", name, found)
        bench.table(f"WRN-10 with DAR-BN: growth with {name}", rows, columns)


def devices(bench: Bench) -> None:
    """Cost of splitting a batch over devices."""
    seconds = min(60.0, max(bench.left(), 1))
    found = bench.attempt("devices", scaling.devices_in_child, bench.options.rounds, seconds)
    bench.table(
        "ResNet-32, batch 128 over several devices that are one processor",
        bench.add("devices", "devices", found),
        TIME | {"work": number("work", "{:.3f}"), "on top": number("overhead", "{:+.0%}")},
    )


def memories(bench: Bench) -> None:
    """Data sets that fit on the device."""
    limit = (bench.device.memory_stats() or {}).get("bytes_limit")
    if limit is None and hasattr(os, "sysconf"):
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    ours = [row for row in bench.rows if "torch" not in row["name"]]
    used = [row["memory_bytes"] for row in ours if row.get("memory_bytes")]
    found = scaling.memory(max(used, default=0), limit)
    size = "size unknown" if limit is None else f"{limit / 2**30:,.0f} GiB"
    bench.table(
        f"data on the device ({size}) beside the largest step measured",
        bench.add("memory", "memory", found),
        {
            "": name_of,
            "images": number("images", "{:,}"),
            "MiB": number("data_bytes", "{:,.0f}", 2**-20),
            "fits": lambda row: {True: "yes", False: "no: must stream", None: "?"}[row["fits"]],
            "must stream above": number("streams_above_images", "{:,} images"),
        },
    )


def profiles(bench: Bench) -> None:
    """Time of a step by operation, beside PyTorch's."""
    model, dtype, batch = next(groups(bench))
    if not bench.on_cpu:
        bench.skip("operation by operation", "written for CPUs; use jax.profiler on a GPU")
        return
    group = f"{model}, {dtype}, batch {batch}"
    made: Program | None = bench.attempt(
        group, step_program, model, dtype=dtype, batch_size=batch, steps_per_call=1
    )
    if made is None:
        return
    (timed,) = bench.time("profile", group, {"jax dar_bn": made})
    rows = bench.add("profile", "jax", bench.attempt("profile", profile.jax_profile, made))
    bench.table(
        f"XLA, {group}: {timed['ms']:,.0f} ms per step",
        rows[:14],
        {
            "": name_of,
            "kind": lambda row: str(row["kind"]),
            "ms of threads": number("thread_ms"),
            "calls": number("calls", "{:,.0f}"),
        },
    )
    found = bench.attempt(
        "convolutions", convolutions.measure, model, batch, with_torch=torch_steps is not None
    )
    sides = ("jax", "torch") if torch_steps is not None else ("jax",)
    columns = {
        f"{short} {side}": number(f"{side} {part}", "{:.2f}")
        for short, part in zip(("fwd", "d input", "d weight"), convolutions.PARTS, strict=True)
        for side in sides
    }
    bench.table(
        f"single convolutions, ms per call: {model}, float32, batch {batch}",
        bench.add("profile", "convolutions", found),
        {"": name_of, "count": number("count", "{}")} | columns,
    )
    if torch_steps is None:
        bench.skip("PyTorch, operation by operation", NO_TORCH)
        return
    other = bench.attempt(
        "PyTorch", torch_steps.step_program, model, "dar_bn", dtype,
        batch_size=batch, form="channels_last", platform="cpu",
    )  # fmt: skip
    found = bench.attempt("profile of PyTorch", profile.torch_profile, other)
    rows = bench.add("profile", "torch", found)
    bench.table(
        f"PyTorch (channels_last), {group}",
        rows[:14],
        {"": name_of, "ms": number("ms"), "calls": number("calls", "{:,.0f}")},
    )


def costs_of_methods(bench: Bench) -> None:
    """The step of every method over that of plain training."""
    model = first_model(bench)
    batch = batch_for(bench, model)
    group = f"{model}, float32, batch {batch}"
    with tempfile.TemporaryDirectory() as folder:
        images = method_costs.write_images(Path(folder) / "images.npz", batch)
        network = bench.attempt(
            f"{group}: network of another run",
            method_costs.train_network, images, model, batch, Path(folder) / "erm",
        )  # fmt: skip

        def make(method: str) -> Program:
            config = method_costs.method_config(method, images, model, batch, network or "")
            return method_costs.method_program(config, method, bench.steps_per_call)

        makers: dict[str, Callable[[], Program]] = {
            method: partial(make, method) for method in bench.options.methods
        }
        rows = bench.time("methods", group, bench.prepare(makers, group))
    plain = next((row for row in rows if row["name"] == "erm"), None)
    for row in rows:
        row["over_erm"] = over(row, plain) if plain else None
    bench.table(
        f"a step of each method: {group}; time over plain training's",
        rows,
        TIME | {"/ erm": number("over_erm", "{:.2f}"), "phase": lambda row: row["phase"]},
    )


SUITES = {
    "steps": steps,
    "norms": norm_forms,
    "chunks": chunks,
    "compiler": compiler,
    "overhead": overheads,
    "save": saves,
    "guard": guards,
    "start": starts,
    "scaling": scalings,
    "devices": devices,
    "memory": memories,
    "profile": profiles,
    "methods": costs_of_methods,
    "feeds": rates_of_feeds,
    "large_trees": large_trees,
}
