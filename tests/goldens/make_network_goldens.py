"""Write the reference arrays that the networks beyond those of the pure-noise papers are compared with.

As in ``make_torch_goldens.py``, the code here is an independent PyTorch statement of the published
architectures, with the names of states that torchvision and the authors' code have.  It needs only
PyTorch and NumPy, and is run by hand when a golden has to change:

    python tests/goldens/make_network_goldens.py

The stored files were made with PyTorch 2.13.0 (CPU) and NumPy 2.4.  It writes, next to itself:

    networks.npz   narrow networks: logits, features, statistics and gradients of a training step
    networks.json  the real networks: number of parameters, hash of the names and shapes of states

All arrays are computed in float64.  Weights and images are not stored: both sides make them with
``recipe`` and ``images`` from names.

    python tests/goldens/make_network_goldens.py --torchvision

writes nothing.  It compares the modules here with those of an installed torchvision, where this has
the network: names, shapes and, from the same weights, logits.  They agreed with torchvision 0.29.1.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from collections.abc import Callable, Iterable

import numpy as np
import torch
from make_torch_goldens import HERE, MaskedNorm, NormMaker, probe, recipe
from make_torch_goldens import BasicBlock as OptionABlock
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 7
NOISE = np.array([False, True, False, False, True, False])
LABELS = np.arange(len(NOISE))
VARIANTS = {
    "bn": ("bn", "none"),
    "aux_bn": ("aux_bn", "none"),
    "dar_bn": ("dar_bn", "affine_stop"),
}


def images(name: str, size: int) -> np.ndarray:
    """Make the images of a network, NHWC; the noise rows have a larger deviation."""
    seed = zlib.crc32(f"images:{name}".encode())
    normal = np.random.RandomState(seed).standard_normal((len(NOISE), size, size, 3))
    normal[NOISE] *= 2
    return normal.astype(np.float32)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a bias-free convolution, padded by half its kernel on every side."""
    return nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )


class Residual(nn.Module):
    """Convolutions with norms, plus a shortcut; the activation follows every norm and the sum.

    ``layers`` holds (inputs, outputs, kernel, stride, groups) of each convolution.
    """

    def __init__(
        self,
        layers: Iterable[tuple[int, int, int, int, int]],
        norm: NormMaker,
        activation: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        layers = list(layers)
        self.activation, self.count = activation, len(layers)
        for i, layer in enumerate(layers, 1):
            self.add_module(f"conv{i}", conv(*layer))
            self.add_module(f"bn{i}", norm(layer[1]))
        inputs, outputs = layers[0][0], layers[-1][1]
        stride = max(layer[3] for layer in layers)
        self.downsample = None
        if inputs != outputs or stride > 1:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), norm(outputs))

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Apply the block."""
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y), noise)
            if i < self.count:
                y = self.activation(y)
        if self.downsample is not None:
            x = self.downsample[1](self.downsample[0](x), noise)
        return self.activation(y + x)


class Classifier(nn.Module):
    """A network that computes maps in ``stages``, then their means, then logits."""

    def forward(self, x: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return logits and the pooled features before the classifier."""
        features = self.stages(x, noise).mean(dim=(2, 3))
        return self.get_submodule(self.last)(features), features

    last = "fc"


class ResNet(Classifier):
    """ResNet or ResNeXt for ImageNet, or with the first layer for CIFAR."""

    def __init__(
        self,
        norm: NormMaker,
        classes: int,
        blocks: tuple[int, ...],
        bottleneck: bool = False,
        width: int = 64,
        groups: int = 1,
        group_width: int | None = None,
        cifar: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = conv(3, width, 3) if cifar else conv(3, width, 7, 2)
        self.bn1 = norm(width)
        self.maxpool = nn.Identity() if cifar else nn.MaxPool2d(3, 2, 1)
        inputs = width
        for stage, count in enumerate(blocks):
            planes = width * 2**stage
            inner = planes if group_width is None else groups * group_width * 2**stage
            layer = nn.Sequential()
            for i in range(count):
                stride = 2 if stage and i == 0 else 1
                if bottleneck:
                    outputs = 4 * planes
                    layers = [
                        (inputs, inner, 1, 1, 1),
                        (inner, inner, 3, stride, groups),
                        (inner, outputs, 1, 1, 1),
                    ]
                else:
                    outputs = planes
                    layers = [(inputs, planes, 3, stride, 1), (planes, planes, 3, 1, 1)]
                layer.append(Residual(layers, norm, torch.relu))
                inputs = outputs
            self.add_module(f"layer{stage + 1}", layer)
        self.count = len(blocks)
        self.fc = nn.Linear(inputs, classes)

    def stages(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Apply everything before the pooling."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x), noise)))
        for stage in range(self.count):
            for block in getattr(self, f"layer{stage + 1}"):
                x = block(x, noise)
        return x


class CifarResNet(Classifier):
    """ResNet for CIFAR with option A; ``branches`` are the blocks side by side at its end."""

    def __init__(
        self, norm: NormMaker, classes: int, count: int, width: int = 16, branches: tuple = ()
    ) -> None:
        super().__init__()
        self.conv1, self.bn1, self.branches = conv(3, width, 3), norm(width), branches
        inputs = width
        for stage in range(3):
            layer = nn.Sequential()
            for i in range(count - (stage == 2 and bool(branches))):
                outputs = width * 2**stage
                layer.append(OptionABlock(inputs, outputs, 2 if stage and i == 0 else 1, norm))
                inputs = outputs
            self.add_module(f"layer{stage + 1}", layer)
        for branch in branches:
            self.add_module(branch, OptionABlock(inputs, inputs, 1, norm))
        self.fc = nn.Linear(inputs * max(1, len(branches)), classes)

    def stages(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Apply everything before the pooling."""
        x = torch.relu(self.bn1(self.conv1(x), noise))
        for block in (*self.layer1, *self.layer2, *self.layer3):
            x = block(x, noise)
        if self.branches:
            x = torch.cat([self.get_submodule(branch)(x, noise) for branch in self.branches], 1)
        return x


class ResNet12(Classifier):
    """The few-shot ResNet-12."""

    def __init__(
        self, norm: NormMaker, classes: int, widths: tuple[int, ...] = (64, 160, 320, 640)
    ) -> None:
        super().__init__()
        inputs = 3
        for stage, width in enumerate(widths, 1):
            layers = [(inputs, width, 3, 1, 1), (width, width, 3, 1, 1), (width, width, 3, 1, 1)]
            block = Residual(layers, norm, nn.LeakyReLU(0.1))
            self.add_module(f"layer{stage}", nn.Sequential(block))
            inputs = width
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(inputs, classes)

    def stages(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Apply everything before the pooling."""
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = self.pool(layer[0](x, noise))
        return x


class DenseNet(Classifier):
    """DenseNet-BC; with ``cifar`` the first layer is a 3x3 convolution alone."""

    last = "classifier"

    def __init__(
        self,
        norm: NormMaker,
        classes: int,
        blocks: tuple[int, ...],
        growth: int = 32,
        cifar: bool = False,
    ) -> None:
        super().__init__()
        width = 2 * growth
        self.features = nn.Module()
        self.features.conv0 = conv(3, width, 3) if cifar else conv(3, width, 7, 2)
        if not cifar:
            self.features.norm0 = norm(width)
        self.blocks = blocks
        for stage, count in enumerate(blocks, 1):
            block = nn.Module()
            for i in range(1, count + 1):
                layer = nn.Module()
                layer.norm1, layer.conv1 = norm(width), conv(width, 4 * growth, 1)
                layer.norm2, layer.conv2 = norm(4 * growth), conv(4 * growth, growth, 3)
                block.add_module(f"denselayer{i}", layer)
                width += growth
            self.features.add_module(f"denseblock{stage}", block)
            if stage < len(blocks):
                transition = nn.Module()
                transition.norm, transition.conv = norm(width), conv(width, width // 2, 1)
                self.features.add_module(f"transition{stage}", transition)
                width //= 2
        self.features.norm5 = norm(width)
        self.classifier = nn.Linear(width, classes)

    def stages(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Apply everything before the pooling."""
        parts = self.features
        x = parts.conv0(x)
        if hasattr(parts, "norm0"):
            x = functional.max_pool2d(torch.relu(parts.norm0(x, noise)), 3, 2, 1)
        for stage in range(1, len(self.blocks) + 1):
            for layer in parts.get_submodule(f"denseblock{stage}").children():
                y = layer.conv1(torch.relu(layer.norm1(x, noise)))
                x = torch.cat([x, layer.conv2(torch.relu(layer.norm2(y, noise)))], 1)
            if stage < len(self.blocks):
                part = parts.get_submodule(f"transition{stage}")
                x = functional.avg_pool2d(part.conv(torch.relu(part.norm(x, noise))), 2)
        return torch.relu(parts.norm5(x, noise))


# The narrow networks, with the size of their images: uneven maps show where a window begins, and
# the last map has several positions, since a norm of few elements is badly conditioned.
Narrow = dict[str, tuple[int, Callable[[NormMaker], Classifier]]]
NARROW: Narrow = {
    "basic": (40, lambda n: ResNet(n, CLASSES, (2, 1, 1, 1), width=4)),
    "bottleneck_cifar": (15, lambda n: ResNet(n, CLASSES, (2, 1, 1, 1), True, 4, cifar=True)),
    "grouped": (40, lambda n: ResNet(n, CLASSES, (1, 2, 1, 1), True, 4, 2, 4)),
    "dense": (72, lambda n: DenseNet(n, CLASSES, (2, 1, 2, 1), growth=4)),
    "dense_cifar": (17, lambda n: DenseNet(n, CLASSES, (1, 2, 1, 1), growth=4, cifar=True)),
    "few_shot": (35, lambda n: ResNet12(n, CLASSES, (4, 6, 8, 10))),
    "bbn": (15, lambda n: CifarResNet(n, CLASSES, 2, 4, ("cb_block", "rb_block"))),
    "wide": (15, lambda n: CifarResNet(n, CLASSES, 1, 12)),
}
# The real networks with 1000 classes, by their names in the package.
REAL: dict[str, Callable[[NormMaker], Classifier]] = {
    "resnet10": lambda n: ResNet(n, 1000, (1, 1, 1, 1)),
    "resnet18": lambda n: ResNet(n, 1000, (2, 2, 2, 2)),
    "resnet18_cifar": lambda n: ResNet(n, 1000, (2, 2, 2, 2), cifar=True),
    "resnet34": lambda n: ResNet(n, 1000, (3, 4, 6, 3)),
    "resnet50": lambda n: ResNet(n, 1000, (3, 4, 6, 3), True),
    "resnet101": lambda n: ResNet(n, 1000, (3, 4, 23, 3), True),
    "resnet152": lambda n: ResNet(n, 1000, (3, 8, 36, 3), True),
    "resnext50_32x4d": lambda n: ResNet(n, 1000, (3, 4, 6, 3), True, 64, 32, 4),
    "densenet121": lambda n: DenseNet(n, 1000, (6, 12, 24, 16)),
    "densenet121_cifar": lambda n: DenseNet(n, 1000, (6, 12, 24, 16), cifar=True),
    "resnet12": lambda n: ResNet12(n, 1000),
    "resnet32_bbn": lambda n: CifarResNet(n, 1000, 5, 16, ("cb_block", "rb_block")),
    "resnet32_w64": lambda n: CifarResNet(n, 1000, 5, 64),
}


def plain(name: str) -> str:
    """Translate the name of a state with ``MaskedNorm`` into that without."""
    return name.replace(".main.", ".").replace(".aux.", ".aux_")


def states(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and running statistics by their plain names."""
    found = {plain(name): value for name, value in model.state_dict().items()}
    return {name: v for name, v in found.items() if not name.endswith("num_batches_tracked")}


def build(make: Callable[[NormMaker], Classifier], variant: str) -> Classifier:
    """Make a filled narrow network in float64."""
    kind, noise_grad = VARIANTS[variant]
    model = make(lambda channels: MaskedNorm(channels, kind, noise_grad))
    with torch.no_grad():
        for name, value in states(model).items():
            value.copy_(torch.from_numpy(recipe(name, tuple(value.shape))))
    return model.to(torch.float64)


def narrow_goldens(narrow: Narrow) -> dict[str, np.ndarray]:
    """Return what is stored of narrow networks, such as the contents of ``networks.npz``."""
    goldens = {"noise": NOISE, "labels": LABELS}
    noise, labels = torch.from_numpy(NOISE), torch.from_numpy(LABELS)
    for case, (size, make) in narrow.items():
        x = torch.from_numpy(images(case, size)).permute(0, 3, 1, 2).to(torch.float64)
        for mode, mask in (("eval", None), ("eval_masked", noise)):
            with torch.no_grad():
                logits, features = build(make, "dar_bn").eval()(x, mask)
            goldens[f"{case}/{mode}/logits"] = logits.numpy()
            goldens[f"{case}/{mode}/features"] = features.numpy()
        for variant in VARIANTS:
            model = build(make, variant).train()
            logits, features = model(x, noise)
            functional.cross_entropy(logits, labels).backward()
            prefix = f"{case}/{variant}"
            goldens[f"{prefix}/logits"] = logits.detach().numpy()
            goldens[f"{prefix}/features"] = features.detach().numpy()
            statistics = {k: v for k, v in states(model).items() if "running" in k}
            goldens[f"{prefix}/stats/names"] = np.array(list(statistics))
            goldens[f"{prefix}/stats/mean"] = np.array(
                [value.mean().item() for value in statistics.values()]
            )
            projections, norms, names = [], [], []
            for name, parameter in model.named_parameters():
                grad = parameter.grad
                assert grad is not None, name
                direction = torch.from_numpy(probe(plain(name), tuple(grad.shape))).to(grad)
                names.append(plain(name))
                projections.append((grad * direction).sum().item())
                norms.append(grad.norm().item())
            goldens[f"{prefix}/grad/names"] = np.array(names)
            goldens[f"{prefix}/grad/projection"] = np.array(projections)
            goldens[f"{prefix}/grad/norm"] = np.array(norms)
    return goldens


def real_goldens() -> dict[str, dict[str, int | str]]:
    """Return the contents of ``networks.json``."""
    found: dict[str, dict[str, int | str]] = {}
    for name, make in REAL.items():
        with torch.device("meta"):
            model = make(lambda channels: MaskedNorm(channels, "bn", "none"))
        lines = sorted(f"{key} {tuple(value.shape)}" for key, value in states(model).items())
        found[name] = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "states": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        }
    return found


def compare_with_torchvision() -> None:
    """Raise an error if a network differs from torchvision's."""
    from torchvision import models

    x = torch.randn(2, 3, 64, 64)
    for name, make in REAL.items():
        if not hasattr(models, name):
            continue
        theirs = getattr(models, name)()
        ours = make(lambda channels: MaskedNorm(channels, "bn", "none"))
        wanted, found = theirs.state_dict(), states(ours)
        wanted = {k: v for k, v in wanted.items() if not k.endswith("num_batches_tracked")}
        assert list(wanted) == list(found) or set(wanted) == set(found), name
        with torch.no_grad():
            for key, value in found.items():
                value.copy_(wanted[key])
            for mode in (False, True):
                expected, logits = theirs.train(mode)(x), ours.train(mode)(x, None)[0]
                torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
        print(name, "agrees")


def save(arrays: dict[str, np.ndarray], name: str) -> None:
    """Write an archive of finite numbers beside the script."""
    bad = [key for key, v in arrays.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]
    if bad:
        raise ValueError(f"not finite: {bad}")
    np.savez_compressed(HERE / name, **arrays)


def main() -> None:
    """Write the golden files."""
    if "--torchvision" in sys.argv[1:]:
        compare_with_torchvision()
        return
    save(narrow_goldens(NARROW), "networks.npz")
    (HERE / "networks.json").write_text(json.dumps(real_goldens(), indent=1) + "\n")


if __name__ == "__main__":
    main()
