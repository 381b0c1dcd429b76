"""Training steps in PyTorch, ready to be timed: a plain form and two optimised ones."""

import contextlib
import logging
import time
import warnings
from typing import Any

import torch
from torch.nn import functional

from benchmarks import torch_models
from benchmarks.timing import Program, cpus

FORMS = ("plain", "channels_last", "compiled")


# All processors that this process may use.
torch.set_num_threads(cpus())


def device(platform: str) -> torch.device:
    """The PyTorch device for JAX's platform.

    Raises:
        RuntimeError: PyTorch cannot use it.
    """
    if platform == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError(f"JAX runs on {platform}, but this PyTorch sees no GPU")
    return torch.device("cuda")


def set_global_options(form: str) -> None:
    """Sets PyTorch's process-wide options for a form."""
    torch.backends.cudnn.benchmark = form != "plain"
    torch.set_float32_matmul_precision("highest" if form == "plain" else "high")


def step_program(
    model: str,
    norm: str,
    dtype: str,
    *,
    batch_size: int,
    form: str,
    platform: str,
    steps_per_call: int = 1,
    num_classes: int = 10,
) -> Program:
    """Makes a training step on a batch that is on the device already, three rows of ten noise.

    Args:
        model: name in this project.
        norm: "bn", "aux_bn" or "dar_bn".
        dtype: "bfloat16" uses autocast.
        batch_size: rows of a step.
        form: "plain" (default settings), "channels_last", or "compiled" (also `torch.compile`).
        platform: JAX's name of the platform.
        steps_per_call: steps before waiting for the device.
        num_classes: K.
    """
    place = device(platform)
    torch.manual_seed(0)
    layout = torch.contiguous_format if form == "plain" else torch.channels_last
    before = 0
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    net: Any = torch_models.create(model, norm, num_classes)
    net = net.to(place, memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=2e-4)
    images = torch.rand(batch_size, 3, 32, 32, device=place).contiguous(memory_format=layout)
    labels = torch.randint(0, num_classes, (batch_size,), device=place)
    noise = labels % 4 == 1
    if form == "compiled":
        # Silences long warnings that boolean indexing breaks graphs; compilation continues.
        logging.getLogger("torch._dynamo").setLevel(logging.CRITICAL)
        # Every network and norm recompiles the same code; with the default limit of 8 the later
        # ones would stay uncompiled.
        torch._dynamo.config.recompile_limit = 256
        warnings.filterwarnings("ignore", module="torch")
    call = torch.compile(net) if form == "compiled" else net
    mixed: Any = contextlib.nullcontext
    if dtype == "bfloat16":

        def mixed() -> Any:
            return torch.autocast(place.type, torch.bfloat16)

    def run() -> None:
        set_global_options(form)
        for _ in range(steps_per_call):
            optimizer.zero_grad()
            with mixed():
                loss = functional.cross_entropy(call(images, noise), labels)
            loss.backward()
            optimizer.step()
        if place.type == "cuda":
            torch.cuda.synchronize()

    started = time.perf_counter()
    run()
    facts: dict[str, Any] = {"batch_size": batch_size}
    if form == "compiled":
        facts["compile_seconds"] = time.perf_counter() - started
    if place.type == "cuda":
        facts["memory_bytes"] = torch.cuda.max_memory_allocated() - before
    return Program(run, steps_per_call, facts)
