"""Write the reference arrays that the JAX layers, models and optimisers are compared with.

The code here is an independent PyTorch statement of what the paper's listing and the published
architectures compute.  It shares nothing with the package, so an agreement means something.
It needs only PyTorch and NumPy, and is run by hand when a golden has to change:

    python tests/goldens/make_torch_goldens.py

The stored files were made with PyTorch 2.13.0 (CPU) and NumPy 2.4; any recent pair will do, the
results then differ by rounding only.  It writes, next to itself:

    dar_bn.npz    DAR-BN, auxiliary BN and plain BN as single layers
    models.npz    ResNet-32 and a small wide ResNet: logits, features, statistics, gradients
    routing.json  which parameters the loss of the noise rows reaches, per kind of norm
    sgd.npz       trajectories of SGD, Adam and AdamW, with Nesterov momentum and with clipping, and
                  learning rates of cosine schedules

Arrays are float32 unless their name ends in ``_f64``, which marks the same quantity computed in
float64 from the same float32 inputs.  Images and activations are stored NHWC, convolution weights
are not stored at all: both sides make them with ``recipe`` from canonical names such as
``stage1.block0.conv1`` (see ``recipe`` for the full list of suffixes).
"""

from __future__ import annotations

import json
import math
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
NOISE_GRADS = ("full_stop", "affine_stop", "none")
# (kind of norm, noise_grad) of every variant whose gradient routing is recorded.
VARIANTS = {
    "bn": ("bn", "none"),
    "aux_bn": ("aux_bn", "none"),
    "dar_bn/full_stop": ("dar_bn", "full_stop"),
    "dar_bn/affine_stop": ("dar_bn", "affine_stop"),
    "dar_bn/none": ("dar_bn", "none"),
}


def recipe(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make the value of one parameter or statistic from its canonical name.

    Weights are in PyTorch layout: convolutions ``(out, in, kh, kw)``, the classifier
    ``(classes, features)``.  The suffix of the name selects the distribution:

    * ``running_var``, ``aux_running_var``: 0.5 + |n|
    * ``running_mean``, ``aux_running_mean``: 0.2 n
    * ``bn*.weight``, ``bn*.aux_weight``: 1 + 0.2 n
    * everything named ``bias`` or ``aux_bias``: 0.2 n
    * other weights (convolutions have no suffix, and ``fc.weight``): n sqrt(2 / fan_in)

    where n is standard normal, seeded with the CRC-32 of the name.
    """
    normal = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        value = 0.5 + np.abs(normal)
    elif name.endswith(("running_mean", "bias")):
        value = 0.2 * normal
    elif name.endswith("weight") and len(shape) == 1:
        value = 1.0 + 0.2 * normal
    else:
        value = normal * math.sqrt(2.0 / math.prod(shape[1:]))
    return value.astype(np.float32)


def probe(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make the fixed direction on which the gradient of the parameter ``name`` is projected."""
    seed = zlib.crc32(f"probe:{name}".encode())
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def nhwc(x: Tensor) -> np.ndarray:
    """Return a detached NCHW tensor as an NHWC array."""
    return np.ascontiguousarray(x.detach().permute(0, 2, 3, 1).numpy())


class MaskedNorm(nn.Module):
    """One normalisation position: plain, auxiliary or distribution-aware batch norm.

    Attributes:
        kind: ``bn`` (one norm over all rows), ``aux_bn`` (a second full norm for the noise rows)
            or ``dar_bn`` (the noise rows by their own moments, with the weight and bias shared).
        noise_grad: for ``dar_bn``, what the noise rows' loss may change. ``full_stop`` is the
            paper's listing, ``affine_stop`` its equations, ``none`` stops nothing.
    """

    def __init__(self, channels: int, kind: str, noise_grad: str) -> None:
        super().__init__()
        self.kind = kind
        self.noise_grad = noise_grad
        self.main = nn.BatchNorm2d(channels)
        self.aux = nn.BatchNorm2d(channels) if kind == "aux_bn" else None

    def _noise_rows(self, rows: Tensor) -> Tensor:
        weight, bias = self.main.weight, self.main.bias
        if self.noise_grad == "affine_stop":
            weight, bias = weight.detach(), bias.detach()
        variance, mean = torch.var_mean(rows, dim=(0, 2, 3), correction=0, keepdim=True)
        scaled = (rows - mean) / torch.sqrt(variance + self.main.eps)
        return scaled * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Normalise ``x``; rows where ``noise`` is true take the noise branch."""
        if noise is None or self.kind == "bn":
            return self.main(x)
        natural_out = self.main(x[~noise])
        if self.aux is not None:
            noise_out = self.aux(x[noise])
        else:
            with torch.set_grad_enabled(self.noise_grad != "full_stop" and torch.is_grad_enabled()):
                noise_out = self._noise_rows(x[noise])
        out = torch.empty_like(x)
        out[~noise] = natural_out
        out[noise] = noise_out
        return out


NormMaker = Callable[[int], MaskedNorm]


def conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    """Return a bias-free convolution, padded by half its kernel on every side."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Post-activation block of the CIFAR ResNet with the parameter-free shortcut (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: NormMaker) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn1 = norm(outputs)
        self.conv2 = conv(outputs, outputs, 3, 1)
        self.bn2 = norm(outputs)
        self.stride = stride
        self.missing = outputs - inputs

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Apply the block."""
        y = torch.relu(self.bn1(self.conv1(x), noise))
        y = self.bn2(self.conv2(y), noise)
        short = x[:, :, :: self.stride, :: self.stride]
        half = self.missing // 2  # = outputs / 4, since the width doubles
        short = functional.pad(short, (0, 0, 0, 0, half, half))
        return torch.relu(y + short)


class WideBlock(nn.Module):
    """Pre-activation block whose shortcut convolution sees the raw block input; no dropout."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: NormMaker) -> None:
        super().__init__()
        self.bn1 = norm(inputs)
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn2 = norm(outputs)
        self.conv2 = conv(outputs, outputs, 3, 1)
        identity = inputs == outputs and stride == 1
        self.shortcut = None if identity else conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Apply the block."""
        y = self.conv1(torch.relu(self.bn1(x, noise)))
        y = self.conv2(torch.relu(self.bn2(y, noise)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-32 for CIFAR (``wide=False``) or a wide ResNet (``wide=True``)."""

    def __init__(self, wide: bool, depth: int, widen: int, norm: NormMaker) -> None:
        super().__init__()
        self.wide = wide
        blocks = (depth - 4 if wide else depth - 2) // 6
        block: type[BasicBlock] | type[WideBlock] = WideBlock if wide else BasicBlock
        self.conv0 = conv(3, 16, 3, 1)
        self.bn0 = None if wide else norm(16)
        width = 16
        for stage in range(3):
            target = 16 * widen * 2**stage
            layers = nn.Module()
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.add_module(f"block{index}", block(width, target, stride, norm))
                width = target
            self.add_module(f"stage{stage + 1}", layers)
        self.bn_final = norm(width) if wide else None
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return logits and the pooled features before the classifier."""
        x = self.conv0(x)
        if self.bn0 is not None:
            x = torch.relu(self.bn0(x, noise))
        for stage in (self.stage1, self.stage2, self.stage3):
            for layer in stage.children():
                x = layer(x, noise)
        if self.bn_final is not None:
            x = torch.relu(self.bn_final(x, noise))
        features = x.mean(dim=(2, 3))
        return self.fc(features), features


def canonical(name: str) -> str:
    """Translate a PyTorch state name of ``ResNet`` into the canonical name."""
    name = name.replace(".main.", ".").replace(".aux.", ".aux_")
    if name.split(".")[-2].startswith(("conv", "shortcut")):
        name = name.removesuffix(".weight")
    return name


def canonical_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of ``model`` under their canonical names."""
    for name, parameter in model.named_parameters():
        yield canonical(name), parameter


def fill(model: nn.Module) -> None:
    """Set every parameter and running statistic of ``model`` from ``recipe``."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                value.copy_(torch.from_numpy(recipe(canonical(name), tuple(value.shape))))


def build(model_name: str, kind: str, noise_grad: str) -> ResNet:
    """Make a filled model; ``model_name`` is ``resnet32`` or ``wrn10_2``."""

    def norm(channels: int) -> MaskedNorm:
        return MaskedNorm(channels, kind, noise_grad)

    wide = model_name != "resnet32"
    model = ResNet(wide, depth=10 if wide else 32, widen=2 if wide else 1, norm=norm)
    fill(model)
    return model


# ------------------------------------------------------------------------------ single layers


def layer(
    kind: str, noise_grad: str, arrays: dict[str, np.ndarray], dtype: torch.dtype
) -> MaskedNorm:
    """Make one norm that holds the parameters and statistics in ``arrays``."""
    module = MaskedNorm(arrays["weight"].shape[0], kind, noise_grad)
    with torch.no_grad():
        for key in ("weight", "bias", "running_mean", "running_var"):
            getattr(module.main, key).copy_(torch.from_numpy(arrays[key]))
            if module.aux is not None:
                getattr(module.aux, key).copy_(torch.from_numpy(arrays[f"aux_{key}"]))
    return module.to(dtype)


def run_layer(
    module: MaskedNorm, x: np.ndarray, cotangent: np.ndarray, noise: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Apply ``module`` to NHWC ``x`` and differentiate ``sum(out * cotangent)``."""
    dtype = module.main.weight.dtype
    leaf = torch.from_numpy(x).permute(0, 3, 1, 2).to(dtype).requires_grad_()
    mask = None if noise is None else torch.from_numpy(noise)
    with warnings.catch_warnings():
        # The variance of no rows warns; its value is never used.
        warnings.simplefilter("ignore")
        out = module(leaf, mask)
    (out * torch.from_numpy(cotangent).permute(0, 3, 1, 2).to(dtype)).sum().backward()
    result = {"out": nhwc(out), "gx": nhwc(leaf.grad)}
    for prefix, part in (("", module.main), ("aux_", module.aux)):
        if part is not None:
            for key, parameter in (("gw", part.weight), ("gb", part.bias)):
                # No gradient at all is what a stopped parameter gets from all-noise batches.
                grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                result[prefix + key] = grad.numpy()
            result[prefix + "mean"] = part.running_mean.numpy()
            result[prefix + "var"] = part.running_var.numpy()
    return result


def layer_goldens() -> dict[str, np.ndarray]:
    """Return the contents of ``dar_bn.npz``."""
    rng = np.random.RandomState(0)
    rows, height, width, channels = 8, 6, 5, 5

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    scale = np.float32([0.3, 1.0, 2.0, 0.7, 1.5])
    shift = np.float32([0.0, 1.5, -2.0, 0.4, 3.0])
    row_shift = normal(rows, 1, 1, channels)
    arrays = {
        "x": normal(rows, height, width, channels) * scale + shift + row_shift,
        "cotangent": normal(rows, height, width, channels),
        "x_1x1": normal(rows, 1, 1, channels) * scale + shift,
        "cotangent_1x1": normal(rows, 1, 1, channels),
        "x_large": normal(rows, height, width, channels) + np.float32(1e3),
    }
    for prefix in ("", "aux_"):
        arrays[f"{prefix}weight"] = 1 + 0.4 * normal(channels)
        arrays[f"{prefix}bias"] = normal(channels)
        arrays[f"{prefix}running_mean"] = 0.5 * normal(channels)
        arrays[f"{prefix}running_var"] = 0.5 + np.abs(normal(channels))
    arrays = {key: value.astype(np.float32) for key, value in arrays.items()}

    masks = {
        "none": np.zeros(rows, bool),
        "one": np.arange(rows) == 5,
        "some": np.array([0, 1, 1, 0, 0, 1, 0, 0], bool),
        "one_natural": np.arange(rows) != 2,
        "all": np.ones(rows, bool),
    }
    goldens = dict(arrays)
    goldens.update({f"mask/{name}": mask for name, mask in masks.items()})

    def record(
        case: str,
        kind: str,
        noise_grad: str,
        inputs: tuple[str, str],
        mask: np.ndarray | None,
        training: bool = True,
    ) -> None:
        x, cotangent = arrays[inputs[0]], arrays[inputs[1]]
        for dtype, suffix in ((torch.float32, ""), (torch.float64, "_f64")):
            module = layer(kind, noise_grad, arrays, dtype).train(training)
            for key, value in run_layer(module, x, cotangent, mask).items():
                # In float64 only the outputs and statistics, whose accuracy is in question.
                if dtype == torch.float32 or (training and key in ("out", "mean", "var")):
                    goldens[f"{case}/{key}{suffix}"] = value

    plain = ("x", "cotangent")
    for name, mask in masks.items():
        for noise_grad in NOISE_GRADS:
            record(f"dar_bn/{name}/{noise_grad}", "dar_bn", noise_grad, plain, mask)
        record(f"aux_bn/{name}", "aux_bn", "none", plain, mask)
        record(f"dar_bn_eval/{name}", "dar_bn", "none", plain, mask, training=False)
    for noise_grad in NOISE_GRADS:
        record(
            f"dar_bn_1x1/one/{noise_grad}",
            "dar_bn",
            noise_grad,
            ("x_1x1", "cotangent_1x1"),
            masks["one"],
        )
        record(
            f"dar_bn_large/some/{noise_grad}",
            "dar_bn",
            noise_grad,
            ("x_large", "cotangent"),
            masks["some"],
        )
    record("aux_bn_eval/some", "aux_bn", "none", plain, masks["some"], training=False)
    record("bn/train", "bn", "none", plain, masks["some"])
    record("bn/eval", "bn", "none", plain, masks["some"], training=False)

    # One output per mask is enough: what is stopped in the backward pass changes no value.
    cases = [f"dar_bn/{name}" for name in masks] + ["dar_bn_1x1/one", "dar_bn_large/some"]
    for case in cases:
        for key in ("out", "out_f64", "mean", "mean_f64", "var", "var_f64"):
            values = [goldens.pop(f"{case}/{noise_grad}/{key}") for noise_grad in NOISE_GRADS]
            for value in values[1:]:
                np.testing.assert_array_equal(values[0], value)
            goldens[f"{case}/{key}"] = values[0]
    return goldens


# ------------------------------------------------------------------------------------- models


def model_goldens() -> tuple[dict[str, np.ndarray], dict[str, dict[str, list[str]]]]:
    """Return the contents of ``models.npz`` and of ``routing.json``."""
    rng = np.random.RandomState(1)
    images = rng.standard_normal((4, 16, 16, 3)).astype(np.float32)
    images[[1, 3]] *= 2  # noise images do not have the statistics of natural ones
    noise = np.array([False, True, False, True])
    routing_images = rng.standard_normal((6, 16, 16, 3)).astype(np.float32)
    routing_noise = np.array([True, False, False, True, True, False])
    routing_labels = np.array([1, 2, 3, 4, 5, 6])
    goldens = {
        "images": images,
        "noise": noise,
        "routing_images": routing_images,
        "routing_noise": routing_noise,
        "routing_labels": routing_labels,
    }
    routing: dict[str, dict[str, list[str]]] = {}

    def tensor(x: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(x).permute(0, 3, 1, 2).to(dtype)

    for model_name in ("resnet32", "wrn10_2"):
        for dtype, suffix in ((torch.float32, ""), (torch.float64, "_f64")):
            for mode, mask in (("train", noise), ("eval", None), ("eval_masked", noise)):
                model = build(model_name, "dar_bn", "full_stop").to(dtype).train(mode == "train")
                with torch.no_grad():
                    logits, features = model(
                        tensor(images, dtype), None if mask is None else torch.from_numpy(mask)
                    )
                goldens[f"{model_name}/{mode}/logits{suffix}"] = logits.numpy()
                goldens[f"{model_name}/{mode}/features{suffix}"] = features.numpy()
                if mode == "train" and not suffix:
                    # The statistics of all norms, as means: enough to find one that is wrong.
                    stats = {
                        canonical(name): value.mean().item()
                        for name, value in model.state_dict().items()
                        if name.endswith(("running_mean", "running_var"))
                    }
                    goldens[f"{model_name}/stats/names"] = np.array(list(stats))
                    goldens[f"{model_name}/stats/mean"] = np.float32(list(stats.values()))

        routing[model_name] = {}
        for variant, (kind, noise_grad) in VARIANTS.items():
            # Gradients in float64: the two frameworks' float32 roundings then need not agree.
            model = build(model_name, kind, noise_grad).to(torch.float64).train()
            logits, _ = model(
                tensor(routing_images, torch.float64), torch.from_numpy(routing_noise)
            )
            functional.cross_entropy(logits, torch.from_numpy(routing_labels)).backward()
            names, projections, norms = [], [], []
            for name, parameter in canonical_parameters(model):
                grad = parameter.grad
                assert grad is not None, name
                direction = torch.from_numpy(probe(name, tuple(grad.shape))).to(grad)
                names.append(name)
                projections.append((grad * direction).sum().item())
                norms.append(grad.norm().item())
            prefix = f"{model_name}/grad/{variant}"
            goldens[f"{prefix}/names"] = np.array(names)
            goldens[f"{prefix}/projection_f64"] = np.array(projections)
            goldens[f"{prefix}/norm_f64"] = np.array(norms)

            model = build(model_name, kind, noise_grad).train()
            logits, _ = model(
                tensor(routing_images, torch.float32), torch.from_numpy(routing_noise)
            )
            loss = functional.cross_entropy(
                logits, torch.from_numpy(routing_labels), reduction="none"
            )
            loss[torch.from_numpy(routing_noise)].sum().backward()
            routing[model_name][variant] = [
                name
                for name, parameter in canonical_parameters(model)
                if parameter.grad is not None and bool((parameter.grad != 0).any())
            ]
    return goldens, routing


# --------------------------------------------------------------------------------- optimisers


def optimizer_goldens() -> dict[str, np.ndarray]:
    """Return the contents of ``sgd.npz``."""
    rng = np.random.RandomState(2)
    shapes = {"w1": (3, 4), "w2": (4,), "b": ()}
    initial = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    inputs = rng.standard_normal((6, 3)).astype(np.float32)
    targets = rng.standard_normal(6).astype(np.float32)
    sgd_rates = [0.1] * 4 + [1e-3] * 4
    adam_rates = [1e-3] * 6
    adamw_rates = [0.02] * 4 + [1e-3] * 4
    momentum = {"momentum": 0.9, "weight_decay": 2e-4}
    adamw = {"weight_decay": 0.3}
    # The last number is the norm that gradients are clipped to in some of the steps; 0 = in none.
    trajectories: dict[str, tuple[type[torch.optim.Optimizer], dict, list[float], float]] = {
        "sgd": (torch.optim.SGD, momentum, sgd_rates, 0),
        "adam": (torch.optim.Adam, {"weight_decay": 2e-4}, adam_rates, 0),
        "nesterov": (torch.optim.SGD, {**momentum, "nesterov": True}, sgd_rates, 0),
        "adamw": (torch.optim.AdamW, adamw, adamw_rates, 0),
        "clip": (torch.optim.SGD, {"momentum": 0.5, "weight_decay": 0.1}, sgd_rates, 2.0),
        "adamw_clip": (torch.optim.AdamW, adamw, adamw_rates, 3.5),
    }
    goldens: dict[str, np.ndarray] = {"inputs": inputs, "targets": targets}
    goldens.update({f"initial/{key}": np.asarray(value) for key, value in initial.items()})
    for name, (kind, arguments, rates, clip) in trajectories.items():
        params = {key: nn.Parameter(torch.tensor(value)) for key, value in initial.items()}
        optimizer = kind(params.values(), lr=rates[0], **arguments)
        trail: dict[str, list[np.ndarray]] = {key: [] for key in params}
        norms = []
        for rate in rates:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            hidden = torch.tanh(torch.from_numpy(inputs) @ params["w1"])
            output = hidden @ params["w2"] + params["b"]
            ((output - torch.from_numpy(targets)) ** 2).mean().backward()
            if clip:
                norms.append(float(nn.utils.clip_grad_norm_(params.values(), clip)))
            optimizer.step()
            for key, value in params.items():
                trail[key].append(value.detach().numpy().copy())
        goldens.update({f"{name}/{key}": np.stack(values) for key, values in trail.items()})
        goldens[f"{name}/lr"] = np.float32(rates)
        if clip:
            goldens[f"{name}/norms"] = np.float32(norms)
    return goldens


def schedule_goldens() -> dict[str, np.ndarray]:
    """Return learning rates by epoch, with cosine schedules; for ``sgd.npz``."""
    goldens = {}
    # (epochs, epochs of warm-up)
    for epochs, warmup in ((10, 0), (12, 3), (200, 5)):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.1)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs - warmup)
        scheduler: torch.optim.lr_scheduler.LRScheduler = cosine
        if warmup:
            linear = torch.optim.lr_scheduler.LinearLR(
                optimizer, 1 / warmup, total_iters=warmup - 1
            )
            scheduler = torch.optim.lr_scheduler.SequentialLR(
                optimizer, [linear, cosine], milestones=[warmup]
            )
        rates = []
        for _ in range(epochs):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        goldens[f"cosine_{epochs}_{warmup}"] = np.array(rates)
    return goldens


def main() -> None:
    """Write all the golden files."""
    models, routing = model_goldens()
    for name, arrays in (
        ("dar_bn", layer_goldens()),
        ("models", models),
        ("sgd", {**optimizer_goldens(), **schedule_goldens()}),
    ):
        bad = [key for key, v in arrays.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]
        if bad:
            raise ValueError(f"{name}: not finite: {bad}")
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
    (HERE / "routing.json").write_text(json.dumps(routing, indent=1) + "\n")


if __name__ == "__main__":
    main()
