"""Write the losses and gradients that the methods with two views are compared with.

The code here states each loss in PyTorch, in float64.  It shares nothing with the package.  It needs
only PyTorch and NumPy, and is run by hand when a golden has to change:

    python tests/goldens/make_view_goldens.py

It writes, next to itself, views.npz: projections of two views with the loss and the gradients of
VICReg and NT-Xent, and a linear network with those of GLMC.  The stored file was made with PyTorch
2.13.0 (CPU) and NumPy 2.4.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

HERE = Path(__file__).resolve().parent
ROWS, WIDTH, CLASSES = 6, 5, 3
COUNTS = torch.tensor([40.0, 10.0, 5.0], dtype=torch.float64)


def off_diagonal(x: Tensor) -> Tensor:
    return x[~torch.eye(len(x), dtype=torch.bool)]


def vicreg_per_branch(
    x: Tensor, y: Tensor, inv: float, var: float, cov: float, target: float
) -> Tensor:
    loss = inv * functional.mse_loss(x, y)
    for z in (x, y):
        std = torch.sqrt(z.var(dim=0) + 1e-4)
        loss = loss + var * functional.relu(target - std).mean() / 2
        loss = loss + cov * off_diagonal(torch.cov(z.T)).pow(2).sum() / z.shape[1]
    return loss


def vicreg_concat(
    x: Tensor, y: Tensor, inv: float, var: float, cov: float, target: float
) -> Tensor:
    c = torch.cov(torch.cat([x, y]).T)
    hinge = functional.relu(target - torch.sqrt(torch.diagonal(c) + 1e-4)).mean()
    return (
        inv * functional.mse_loss(x, y) + var * hinge + cov * off_diagonal(c).pow(2).sum() / len(c)
    )


def nt_xent(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    rows, total = torch.cat([x, y]), torch.zeros((), dtype=torch.float64)
    count = len(x)
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        others = [j for j in range(2 * count) if j != i]
        cosine = functional.cosine_similarity(rows[i : i + 1], rows[others], dim=1)
        label = torch.tensor([others.index(partner)])
        total = total + functional.cross_entropy(cosine[None] / temperature, label)
    return total / (2 * count)


def glmc(
    first: Tensor, second: Tensor, label: Tensor, kernels: dict[str, Tensor], given: dict
) -> Tensor:
    share, partner, box = given["share"], given["partner"], given["box"]
    mixed = share * first + (1 - share) * first[partner]
    cut = second.clone()
    cut[:, box] = second[partner][:, box]
    weights = COUNTS**-1.2
    weights = weights / weights.sum() * CLASSES
    one_hot = functional.one_hot(label, CLASSES).double()
    soft = share * one_hot + (1 - share) * one_hot[partner]
    soft_weighted = share * weights * one_hot + (1 - share) * weights * one_hot[partner]
    alpha = 1 - given["progress"] ** 2
    loss, projections, predictions = torch.zeros((), dtype=torch.float64), [], []
    for view in (mixed, cut):
        features = view.flatten(1)
        plain, head = (functional.log_softmax(features @ kernels[k], 1) for k in ("plain", "head"))
        loss = loss - alpha * (soft * plain).sum(1).mean()
        loss = loss - (1 - alpha) * (soft_weighted * head).sum(1).mean()
        projections.append(features @ kernels["projection"])
        predictions.append(projections[-1] @ kernels["prediction"])
    for p, z in zip(predictions, projections[::-1], strict=True):
        cosine = functional.cosine_similarity(p, z.detach(), dim=1)
        loss = loss - given["contrast_weight"] * cosine.mean()
    return loss


def main() -> None:
    draw = np.random.default_rng(0)
    stored: dict[str, np.ndarray] = {}

    def keep(name: str, loss: Tensor, **leaves: Tensor) -> None:
        stored[f"{name}/loss"] = loss.detach().numpy()
        grads = torch.autograd.grad(loss, list(leaves.values()))
        for leaf, grad in zip(leaves, grads, strict=True):
            stored[f"{name}/{leaf}"] = grad.numpy()

    x, y = (
        torch.tensor(draw.normal(0.3, 0.8, (ROWS, WIDTH)), requires_grad=True) for _ in range(2)
    )
    stored["first"], stored["second"] = x.detach().numpy(), y.detach().numpy()
    keep("per_branch", vicreg_per_branch(x, y, 0.7, 1.3, 0.4, 0.9), first=x, second=y)
    keep("concat", vicreg_concat(x, y, 0.7, 1.3, 0.4, 0.9), first=x, second=y)
    keep("nt_xent", nt_xent(x, y, 0.3), first=x, second=y)

    images = torch.tensor(draw.uniform(0, 1, (2, ROWS, 2, 2, 3)))
    shapes = {"head": (12, 3), "plain": (12, 3), "projection": (12, 4), "prediction": (4, 4)}
    kernels = {
        name: torch.tensor(draw.normal(0, 0.5, shape), requires_grad=True)
        for name, shape in shapes.items()
    }
    label = torch.tensor([0, 2, 1, 0, 1, 2])
    given = {
        "share": 0.35,
        "partner": torch.tensor([3, 0, 5, 1, 4, 2]),
        "box": torch.tensor([[True, False], [True, False]]),
        "progress": 0.6,
        "contrast_weight": 1.7,
    }
    keep("glmc", glmc(images[0], images[1], label, kernels, given), **kernels)
    stored |= {f"glmc/given/{name}": np.asarray(value) for name, value in given.items()}
    stored |= {f"glmc/kernel/{name}": value.detach().numpy() for name, value in kernels.items()}
    stored |= {"glmc/images": images.numpy(), "glmc/label": label.numpy()}
    np.savez_compressed(HERE / "views.npz", **stored)


if __name__ == "__main__":
    main()
