"""Write the gradients of the sampler's parameters that the meta sampler is compared with.

The code here states the two levels of the meta sampler in PyTorch, in float64: a step of SGD with
momentum and weight decay of a linear classifier, whose rows have straight-through weights, and the
cross-entropy of the new classifier.  It shares nothing with the package.  It needs only PyTorch and
NumPy, and is run by hand when a golden has to change:

    python tests/goldens/make_meta_goldens.py

It writes, next to itself, meta.npz: the rows, and for every case the classifier after the step, the
meta loss and its gradient.  The stored file was made with PyTorch 2.13.0 (CPU) and NumPy 2.4.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

HERE = Path(__file__).resolve().parent
COUNTS = torch.tensor([40.0, 10.0, 5.0], dtype=torch.float64)
ROWS, VALID, WIDTH, CLASSES = 9, 7, 4, 3
RATE, DECAY = 0.3, 0.01


def sampled(w: Tensor, gumbel: Tensor) -> tuple[Tensor, Tensor]:
    """The classes of rows, and their weights of 1 with the gradient of the relaxed draw."""
    scores = torch.log(COUNTS * torch.sigmoid(w)) + gumbel
    soft = torch.softmax(scores, dim=1)
    label = scores.argmax(dim=1)
    hard = functional.one_hot(label, CLASSES).double()
    straight_through = hard - soft.detach() + soft
    return label, straight_through[torch.arange(len(label)), label]


def case(
    rows: dict[str, Tensor], w: Tensor, momentum: float, buffer: tuple[Tensor, Tensor]
) -> dict[str, np.ndarray]:
    w = w.clone().requires_grad_()
    label, weights = sampled(w, rows["gumbel"])
    head = [rows["kernel"].clone().requires_grad_(), rows["bias"].clone().requires_grad_()]
    logits = rows["features"] @ head[0] + head[1] + torch.log(COUNTS)
    losses = functional.cross_entropy(logits, label, reduction="none")
    loss = (losses * weights.detach() * weights)[:VALID].mean()
    grads = torch.autograd.grad(loss, head, create_graph=True)
    new = [
        x - RATE * (momentum * v + g + DECAY * x)
        for x, v, g in zip(head, buffer, grads, strict=True)
    ]
    meta = functional.cross_entropy(
        (rows["host_features"] @ new[0] + new[1])[:VALID], rows["host_label"][:VALID]
    )
    (grad,) = torch.autograd.grad(meta, w)
    return {
        "w": w.detach().numpy(),
        "label": label.numpy(),
        "kernel": new[0].detach().numpy(),
        "bias": new[1].detach().numpy(),
        "loss": meta.detach().numpy(),
        "grad": grad.numpy(),
    }


def main() -> None:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Tensor:
        return torch.tensor(rng.normal(0, 1, shape).astype(np.float32), dtype=torch.float64)

    rows = {
        "features": draw(ROWS, WIDTH),
        "host_features": draw(ROWS, WIDTH),
        "kernel": draw(WIDTH, CLASSES),
        "bias": draw(CLASSES),
        "gumbel": torch.tensor(rng.gumbel(size=(ROWS, CLASSES)).astype(np.float32)).double(),
        "host_label": torch.tensor([0, 1, 2, 2, 1, 0, 1, 2, 0]),
    }
    zero = (torch.zeros(WIDTH, CLASSES), torch.zeros(CLASSES))
    buffer, learnt = (draw(WIDTH, CLASSES), draw(CLASSES)), draw(CLASSES)
    cases = {
        "first": case(rows, torch.zeros(CLASSES).double(), 0.9, zero),
        "learnt": case(rows, learnt, 0.9, buffer),
        "extreme": case(rows, torch.tensor([-12.0, 9.0, 3.0]).double(), 0.9, buffer),
    }
    found = {name: array.numpy() for name, array in rows.items()}
    found |= {"valid": np.arange(ROWS) < VALID, "rate": np.array(RATE)}
    for name, entries in cases.items():
        found |= {f"{name}/{entry}": array for entry, array in entries.items()}
    np.savez_compressed(HERE / "meta.npz", **found)


if __name__ == "__main__":
    main()
