"""The networks of the pure-noise papers in PyTorch, with DAR-BN as in the paper's listing.

Written for comparison from the paper's listing 1 and the published architectures: boolean indexing,
the natural rows through `BatchNorm2d`, the noise rows without gradient.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Norm(nn.Module):
    """Plain, auxiliary or distribution-aware batch norm."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.main = nn.BatchNorm2d(channels)
        self.aux = nn.BatchNorm2d(channels) if kind == "aux_bn" else None

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Normalises rows [B, C, H, W]; `noise` is bool[B]."""
        if self.kind == "bn":
            return self.main(x)
        natural = ~noise
        out_natural = self.main(x[natural])
        if self.aux is not None:
            out_noise = self.aux(x[noise])
        else:
            with torch.no_grad():
                out_noise = self.listing(x[noise])
        out = torch.empty_like(x, dtype=out_natural.dtype)
        out[natural] = out_natural
        out[noise] = out_noise.to(out.dtype)
        return out

    def listing(self, x: Tensor) -> Tensor:
        """Normalises noise rows with their own moments and the shared affine parameters."""
        bn = self.main
        mean = x.mean((0, 2, 3), keepdim=True)
        var = x.var((0, 2, 3), unbiased=False, keepdim=True)
        scale, bias = bn.weight[None, :, None, None], bn.bias[None, :, None, None]
        return (x - mean) / torch.sqrt(var + bn.eps) * scale + bias


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class BasicBlock(nn.Module):
    """Basic block of the CIFAR ResNet, with the parameter-free shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, kind: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3(inputs, outputs, stride), Norm(outputs, kind)
        self.conv2, self.bn2 = conv3(outputs, outputs), Norm(outputs, kind)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Maps activations to activations."""
        y = functional.relu(self.bn1(self.conv1(x), noise))
        y = self.bn2(self.conv2(y), noise)
        short = x[:, :, :: self.stride, :: self.stride]
        if self.extra:
            short = functional.pad(short, (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        return functional.relu(y + short)


class WideBlock(nn.Module):
    """Block of the wide ResNet, with dropout after its first convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, kind: str) -> None:
        super().__init__()
        self.bn1, self.conv1 = Norm(inputs, kind), conv3(inputs, outputs, stride)
        self.bn2, self.conv2 = Norm(outputs, kind), conv3(outputs, outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Maps activations to activations."""
        y = self.conv1(functional.relu(self.bn1(x, noise)))
        y = functional.dropout(y, 0.3, self.training)
        y = self.conv2(functional.relu(self.bn2(y, noise)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class Network(nn.Module):
    """Stem, three stages of blocks, linear head; `widen` 0 is the CIFAR ResNet."""

    def __init__(self, depth: int, widen: int, kind: str, num_classes: int) -> None:
        super().__init__()
        block: type[nn.Module] = WideBlock if widen else BasicBlock
        count = (depth - 4) // 6 if widen else (depth - 2) // 6
        self.conv0 = conv3(3, 16)
        self.bn0 = None if widen else Norm(16, kind)
        blocks, inputs = [], 16
        for stage, width in enumerate((16, 32, 64)):
            outputs = width * max(widen, 1)
            for i in range(count):
                stride = 2 if stage and not i else 1
                blocks.append(block(inputs, outputs, stride, kind))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.bn_final = Norm(inputs, kind) if widen else None
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Logits [B, K] of images [B, 3, H, W]."""
        x = self.conv0(x)
        if self.bn0 is not None:
            x = functional.relu(self.bn0(x, noise))
        for block in self.blocks:
            x = block(x, noise)
        if self.bn_final is not None:
            x = functional.relu(self.bn_final(x, noise))
        return self.head(x.mean((2, 3)))


SHAPES = {
    "resnet8": (8, 0),
    "resnet20": (20, 0),
    "resnet32": (32, 0),
    "resnet56": (56, 0),
    "wrn10_1": (10, 1),
    "wrn10_2": (10, 2),
    "wrn16_4": (16, 4),
    "wrn28_10": (28, 10),
}


def create(name: str, kind: str, num_classes: int) -> Network:
    """Creates a network by its name in this project.

    Raises:
        ValueError: the network is not written in PyTorch here.
    """
    if name not in SHAPES:
        raise ValueError(f"{name} is not among the networks in PyTorch: {', '.join(SHAPES)}")
    depth, widen = SHAPES[name]
    return Network(depth, widen, kind, num_classes)
