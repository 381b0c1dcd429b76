"""Write the losses and gradients that the methods' losses are compared with.

The code here states each loss in PyTorch, in float64, for a linear network and one batch of which
some rows are padding, and for given logits of a batch without padding.  It shares nothing with the
package.  It needs only PyTorch and NumPy, and is run by hand when a golden has to change:

    python tests/goldens/make_loss_goldens.py

It writes, next to itself, losses.npz: the batch, and for every case the loss and its gradient to the
kernel; under "logits/", the logits, and for every case the loss and its gradient to them.  The
stored file was made with PyTorch 2.14.1 (CPU) and NumPy 2.4; what PyTorch 2.13.0 made before had the
same bits.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

HERE = Path(__file__).resolve().parent
COUNTS = torch.tensor([40.0, 10.0, 5.0], dtype=torch.float64)
SHARE = COUNTS / COUNTS.sum()
ROWS, VALID = 9, 7


def balanced(beta: float) -> Tensor:
    """Weights by the effective number, with a sum of the number of classes."""
    weights = (1 - beta) / (1 - beta**COUNTS)
    return weights / weights.sum() * len(COUNTS)


def focal_softmax(z: Tensor, y: Tensor, gamma: float, weight: Tensor | None = None) -> Tensor:
    nll = functional.cross_entropy(z, y, weight=weight, reduction="none")
    return ((1 - torch.exp(-nll)) ** gamma * nll).mean()


def focal_sigmoid(z: Tensor, y: Tensor, gamma: float, weight: Tensor) -> Tensor:
    label = functional.one_hot(y, len(COUNTS)).double()
    p = torch.sigmoid(z)
    p_of_truth = torch.where(label > 0, p, 1 - p)
    bce = functional.binary_cross_entropy(p, label, reduction="none")
    return ((1 - p_of_truth) ** gamma * bce * weight[y][:, None]).sum() / label.sum()


def smoothed(z: Tensor, y: Tensor, smoothing: list[float]) -> Tensor:
    rows = [
        functional.cross_entropy(z[i : i + 1], y[i : i + 1], label_smoothing=smoothing[y[i]])
        for i in range(len(y))
    ]
    return torch.stack(rows).mean()


def lade_regulariser(z: Tensor, y: Tensor, penalty: float, weights: str) -> Tensor:
    classes, total = len(COUNTS), torch.zeros((), dtype=torch.float64)
    for c in range(classes):
        own = z[y == c, c]
        first = own.mean() if len(own) else torch.zeros((), dtype=torch.float64)
        ratio = 1 / (classes * (SHARE[y] if weights == "paper" else SHARE[c].expand(len(y))))
        second = torch.log((ratio * torch.exp(z[:, c])).mean())
        total = total - SHARE[c] * (first - second - penalty * second**2)
    return total


def lade(z: Tensor, y: Tensor, alpha: float, penalty: float, weights: str, cross: Tensor) -> Tensor:
    return cross + alpha * lade_regulariser(z, y, penalty, weights)


def cases(z: Tensor, y: Tensor) -> dict[str, Tensor]:
    def cross(weight: Tensor | None = None) -> Tensor:
        return functional.cross_entropy(z, y, weight=weight)

    def prior(weight: Tensor | None = None) -> Tensor:
        return functional.cross_entropy(z + SHARE.log(), y, weight=weight)

    def by_rows(shift: Tensor | float, weight: Tensor) -> Tensor:
        nll = functional.cross_entropy(z + shift, y, reduction="none")
        return (nll * weight[y]).sum() / len(y)

    def margin(delta: float, scale: float) -> Tensor:
        by_class = delta * (COUNTS / COUNTS.min()) ** -0.25
        moved = z - torch.diag(by_class)[y]
        return functional.cross_entropy(scale * moved, y)

    def tempered(gamma: float, tau: float) -> Tensor:
        # Columns are multiplied by a power of the share of the largest class.
        return functional.cross_entropy(z * (COUNTS / COUNTS.max()) ** gamma + tau * SHARE.log(), y)

    half = balanced(0.9)
    return {
        "ldam": margin(0.4, 8.0),
        "vs": tempered(0.3, 1.25),
        "cdt": tempered(0.4, 0.0),
        "inverse": cross(1 / COUNTS),
        "square_root": cross(COUNTS**-0.5),
        "adrw_tla": prior(SHARE**-0.15),
        "effective_number": cross(half),
        "effective_number_by_rows": by_rows(0.0, half),
        "focal_half": focal_softmax(z, y, 0.5),
        "focal_two": focal_softmax(z, y, 2.0),
        "focal_two_weighted": focal_softmax(z, y, 2.0, half),
        "focal_two_sigmoid": focal_sigmoid(z, y, 2.0, half),
        # A seventh of the way from the rarest class to the most frequent one.
        "label_aware": smoothed(z, y, [0.4, 0.1 + 0.3 * float(np.sin(np.pi / 14)), 0.1]),
        "lade_code": lade(z, y, 0.7, 0.3, "code", prior()),
        "lade_paper": lade(z, y, 0.7, 0.3, "paper", prior()),
        "lade_weighted": lade(z, y, 0.7, 0.3, "code", prior(half)),
        "lade_weighted_by_rows": lade(z, y, 0.7, 0.3, "code", by_rows(SHARE.log(), half)),
    }


def class_conditional(z: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Label smoothing in all readings, with an amount of 0.1 or from 0.3 down to 0.02."""
    middle = (10 - 5) / (40 - 5)  # of the way from the rarest class to the most frequent one
    amounts = {
        "literal": 0.1 / (1 - SHARE),
        "inverse": 0.1 * SHARE.min() / SHARE,
        "one_minus_p": 0.1 * (1 - SHARE),
        "concave": [0.3, 0.02 + 0.28 * np.sin(np.pi / 2 * middle), 0.02],
        "linear": [0.3, 0.02 + 0.28 * middle, 0.02],
        "convex": [0.3, 0.02 + 0.28 * (1 - np.cos(np.pi / 2 * middle)), 0.02],
    }
    return {name: smoothed(z, y, [float(x) for x in amount]) for name, amount in amounts.items()}


def cases_of_logits(z: Tensor, y: Tensor, beta: Tensor) -> dict[str, Tensor]:
    label = functional.one_hot(y, len(COUNTS)).double()
    rare = SHARE < 0.2
    weight = balanced(0.9999)

    def equalised(drawn: Tensor) -> Tensor:
        # A class with the logit minus infinity is not in the denominator.
        return functional.cross_entropy(z + torch.log(1 - drawn * rare * (1 - label)), y)

    return {
        "seql": equalised(beta),
        "seql_always": equalised(torch.ones_like(beta)),
        "seql_mean": equalised(torch.full_like(beta, 0.6)),
        "maxnorm": functional.cross_entropy(z, y, weight=weight) * weight[y].mean(),
        # The weight of a row counts in all its classes, and the mean is over both.
        "maxnorm_binary": functional.binary_cross_entropy(
            torch.softmax(z, dim=1), label, weight=weight[y][:, None].expand_as(z)
        ),
        "uniform": functional.cross_entropy(z, y, label_smoothing=0.1),
        "over": functional.cross_entropy(z, y, label_smoothing=0.98),
        "tau_half": functional.cross_entropy(z + 0.5 * SHARE.log(), y),
        "tau_two": functional.cross_entropy(z + 2.0 * SHARE.log(), y),
        **class_conditional(z, y),
    }


def of_logits() -> dict[str, np.ndarray]:
    """The losses of twelve rows and their gradients to the logits."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (12, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 0, 1, 2, 2, 1, 0, 0, 2], np.int32)
    beta = rng.random((12, 3)) < 0.6
    z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    found = {"logits/logits": logits, "logits/labels": labels, "logits/beta": beta}
    losses = cases_of_logits(z, torch.tensor(labels).long(), torch.tensor(beta).double())
    for name, loss in losses.items():
        (grad,) = torch.autograd.grad(loss, z, retain_graph=True)
        found |= {f"logits/{name}/loss": loss.detach().numpy(), f"logits/{name}/grad": grad.numpy()}
    return found


def causal_head() -> dict[str, np.ndarray]:
    """Logits of the multi-head normalised classifier in training and in evaluation."""
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.normal(size=(5, 6)).astype(np.float32), dtype=torch.float64)
    w = torch.tensor(rng.normal(size=(6, 4)).astype(np.float32), dtype=torch.float64)
    mean = torch.tensor(rng.normal(size=6).astype(np.float32), dtype=torch.float64)
    x.requires_grad_()
    w.requires_grad_()
    tau, gamma, alpha = 16.0, 1 / 32, 1.5
    plain, effect = [], []
    for part in (slice(0, 3), slice(3, 6)):
        w_part = w[part] / (w[part].norm(dim=0, keepdim=True) + gamma)
        x_part = functional.normalize(x[:, part], dim=1)
        c = functional.normalize(mean[part], dim=0)
        cosine = functional.cosine_similarity(x[:, part], mean[None, part], dim=1)
        plain.append(tau / 2 * x_part @ w_part)
        effect.append(tau / 2 * (x_part - alpha * cosine[:, None] * c) @ w_part)
    logits = sum(plain)
    probe = torch.tensor(rng.normal(size=(5, 4)), dtype=torch.float64)
    (logits * probe).sum().backward()
    return {
        "head/features": x.detach().numpy(),
        "head/kernel": w.detach().numpy(),
        "head/mean": mean.numpy(),
        "head/probe": probe.numpy(),
        "head/logits": logits.detach().numpy(),
        "head/effect": sum(effect).detach().numpy(),
        "head/features_grad": x.grad.numpy(),
        "head/kernel_grad": w.grad.numpy(),
    }


def cosine_head() -> dict[str, np.ndarray]:
    """The cross-entropy of scaled cosines, and its gradients to features, weights and scale."""
    rng = np.random.default_rng(2)
    x = torch.tensor(rng.normal(size=(5, 6)).astype(np.float32), dtype=torch.float64)
    w = torch.tensor(rng.normal(size=(6, 4)).astype(np.float32), dtype=torch.float64)
    y = torch.tensor([0, 3, 1, 1, 2])
    scale = torch.tensor(10.0, dtype=torch.float64)
    for leaf in (x, w, scale):
        leaf.requires_grad_()
    logits = scale * functional.cosine_similarity(x[:, :, None], w[None], dim=1)
    functional.cross_entropy(logits, y).backward()
    return {
        "cosine/features": x.detach().numpy(),
        "cosine/kernel": w.detach().numpy(),
        "cosine/labels": y.numpy(),
        "cosine/logits": logits.detach().numpy(),
        "cosine/features_grad": x.grad.numpy(),
        "cosine/kernel_grad": w.grad.numpy(),
        "cosine/scale_grad": scale.grad.numpy(),
    }


def main() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (ROWS, 2, 2, 3), dtype=np.uint8)
    labels = np.array([0, 1, 0, 2, 1, 0, 0, 2, 1], np.int32)
    kernel = rng.normal(0, 1, (12, 3)).astype(np.float32)
    features = torch.tensor(images[:VALID].reshape(VALID, -1) / 255)
    y = torch.tensor(labels[:VALID], dtype=torch.long)
    found: dict[str, np.ndarray] = {
        "images": images,
        "labels": labels,
        "kernel": kernel,
        "valid": np.arange(ROWS) < VALID,
    }
    w = torch.tensor(kernel, dtype=torch.float64, requires_grad=True)
    for name, loss in cases(features @ w, y).items():
        (grad,) = torch.autograd.grad(loss, w, retain_graph=True)
        found[f"{name}/loss"], found[f"{name}/grad"] = loss.detach().numpy(), grad.numpy()
    found |= {**causal_head(), **cosine_head(), **of_logits()}
    np.savez_compressed(HERE / "losses.npz", **found)


if __name__ == "__main__":
    main()
