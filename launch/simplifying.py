"""Table 5 of Shwartz-Ziv et al. 2023: WRN-28-10 by classes with few, medium and many images.

All rows have the paper's recipe: TrivialAugment, CutMix, label smoothing and a moving average of
the weights, 300 epochs at a rate of 0.1 that follows a cosine after a warm-up, and five runs
(`--seeds 5`). SAM-A is that of the authors' code, in which both passes move the running statistics.

READING: the paper gives no imbalance ratio; here it is 100, as in most comparisons, at which no
class of CINIC-10 has fewer than 20 images, so only the paper has numbers for few. Nor does it
give the length of the warm-up (5 epochs here), the amount of smoothing, the decay of the average,
the probability of CutMix, the weights of VICReg, or gamma of the focal loss, which are our
defaults.
Images have TrivialAugment only, without flip and crop, because the paper names no other.
WRN-28-10 drops no activations, as in the authors' code.
READING: "Reweighting" are weights by the inverse frequency. M2m uses the network of its own first
stage, so with Joint-SSL and SAM-A one that was trained with them.
Joint-SSL compares two views that are not mixed, in passes of its own beside CutMix's.
"""

from typing import Any

from .data_sets import data_cell
from .plan import Cell, Plan, Table

RECIPE = "label_smoothing+ema"
BOTH: dict[str, Any] = {"method__sam_a__statistics": "both"}
# Methods beside the recipe; few / medium / many of CINIC-10 and of CIFAR-100.
ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("ERM", "cutmix", "40.5 ± 0.4 / 64.1 ± 0.3 / 90.1 ± 0.5",
     "20.1 ± 0.3 / 42.3 ± 0.3 / 70.5 ± 0.6"),
    ("Reweighting", "cutmix+reweight", "36.6 ± 0.5 / 63.1 ± 0.3 / 87.8 ± 0.3",
     "17.1 ± 0.4 / 39.3 ± 0.3 / 67.1 ± 0.4"),
    ("Resampling", "cutmix+rs", "37.4 ± 0.5 / 63.6 ± 0.6 / 87.9 ± 0.4",
     "18.4 ± 0.2 / 38.1 ± 0.2 / 68.9 ± 0.3"),
    ("Focal loss", "cutmix+focal", "39.1 ± 0.2 / 63.9 ± 0.2 / 88.2 ± 0.5",
     "19.8 ± 0.4 / 39.0 ± 0.5 / 69.3 ± 0.6"),
    ("LDAM-DRW", "cutmix+ldam+drw", "40.1 ± 0.4 / 64.3 ± 0.4 / 89.8 ± 0.3",
     "20.8 ± 0.5 / 42.1 ± 0.3 / 70.6 ± 0.4"),
    ("M2m", "cutmix+m2m", "42.8 ± 0.7 / 64.1 ± 0.6 / 90.3 ± 0.4",
     "20.1 ± 0.6 / 41.8 ± 0.4 / 69.4 ± 0.5"),
    ("SAM-A", "cutmix+sam_a", "43.2 ± 0.3 / 62.3 ± 0.6 / 89.7 ± 0.3",
     "22.5 ± 0.4 / 40.3 ± 0.3 / 70.1 ± 0.4"),
    ("Joint-SSL, SAM-A", "cutmix+joint_ssl+sam_a", "43.9 ± 0.4 / 63.3 ± 0.5 / 90.4 ± 0.5",
     "22.9 ± 0.3 / 41.3 ± 0.6 / 69.9 ± 0.6"),
    ("Joint-SSL, SAM-A, M2m", "cutmix+joint_ssl+sam_a+m2m", "44.1 ± 0.3 / 64.2 ± 0.4 / 90.9 ± 0.3",
     "23.9 ± 0.4 / 42.3 ± 0.2 / 70.4 ± 0.3"),
)  # fmt: skip


def simplifying(plan: Plan) -> Table:
    """Tuned plain training, SAM-A and Joint-SSL by few, medium and many images."""
    cells = []
    for name, methods, _, number in ROWS:
        both = BOTH if "sam_a" in methods else {}
        config = plan.config(
            "CIFAR-100-LT",
            f"{methods}+{RECIPE}",
            epochs=300,
            data__augment=("trivialaugment",),
            optimizer__schedule="cosine",
            optimizer__milestones=(),
            optimizer__warmup_epochs=plan.scaled(5),
            model__dropout=0.0,
            **both,
        )
        cells.append(Cell("CIFAR-100-LT, ratio 100", name, config, (number,)))
    for name, methods, number, _ in ROWS:
        method, both = f"{methods}+{RECIPE}", BOTH if "sam_a" in methods else {}
        cells.append(
            data_cell(plan, "CINIC-10", "CINIC-10", name, number, method, epochs=300, **both)
        )
    return Table(
        "training routines by few / medium / many images",
        "Shwartz-Ziv et al. 2023, table 5 (five runs, ratio not stated)",
        tuple(cells),
        published=("published few / medium / many",),
        shots=True,
        note="At a ratio of 100, CINIC-10 has no class with fewer than 20 images, and so no number "
        "of ours for few.",
    )
