"""Sharpness-aware minimisation for long tails: SAM, the readings of SAM-A, ImbSAM and Focal-SAM.

SAM, SAM-A and ImbSAM are combined with plain training, LDAM-DRW and VS; ResNet-32, flip and crop,
200 epochs.
Published are SAM with DRW and with LDAM-DRW (Rangwani et al. 2022), whose lengths of the ascent
step are tuned for each loss. They, and not our default, are used for SAM, ImbSAM and the losses
that SAM-A was not published with; plain SAM-A has the 0.05 of its authors. In all published code
both passes move the running statistics, so they do here. Focal-SAM is that of its authors' script:
with logit adjustment, its own length, exponent, weight of the sharpness and weight decay, batches
of 64, and a cosine from the first step on.

READING: the length for VS is that which Wang et al. 2023 have with a stronger recipe. Rangwani et
al. are taken to have the schedule of Cao et al.
READING: the length of ImbSAM is that of SAM. The three numbers of its authors are shown beside the
recipe of their script: ResNet-34, the first images of every class, batches of 64 at a rate of 0.01
and a cosine from the first step on, a tail of classes with fewer than 20 images. It keeps the best
epoch on the test set.
"""

from typing import Any

from .plan import Cell, Plan, Table
from .two_stage import WIDE_RECIPE

# Loss, methods, length of the ascent step of SAM for CIFAR-10-LT and CIFAR-100-LT, their numbers.
LOSSES: tuple[tuple[str, str, tuple[float, float], tuple[str, str]], ...] = (
    ("ERM", "", (0.1, 0.2), ("", "")),
    ("DRW", "drw+", (0.5, 0.8), ("80.6", "44.6")),
    ("LDAM-DRW", "ldam+drw+", (0.8, 0.8), ("81.9", "45.4")),
    ("VS", "vs+", (0.1, 0.3), ("", "")),
)
READINGS = ("weighted_ascent", "one_minus_share", "inverse_share")
# Weight decay of Focal-SAM; the config files have its arguments.
FOCAL_DECAY = {"CIFAR-10-LT": 2e-4, "CIFAR-100-LT": 1e-3}
# The number of each method in the repository of ImbSAM, and its arguments there.
IMBSAM: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ERM": ("erm", "47.6", {}),
    "SAM": ("sam", "48.9", {"rho": 0.05, "statistics": "both"}),
    "ImbSAM": ("imbsam", "51.1", {"rho": 0.05, "statistics": "both", "eta": 19}),
}


def sam_table(plan: Plan) -> Table:
    """SAM, SAM-A in all readings, ImbSAM and Focal-SAM, with several losses."""
    cells = []
    for column, dataset in enumerate(("CIFAR-10-LT", "CIFAR-100-LT")):
        for loss, methods, lengths, numbers in LOSSES:
            cells += _of_loss(plan, dataset, loss, methods, lengths[column], numbers[column])
        cells.append(_focal_sam(plan, dataset))
    cells += _of_imbsam(plan)
    return Table(
        "sharpness-aware minimisation, ratio 100, ResNet-32 where no other network is named",
        "Rangwani et al. 2022, authors' code; Zhou et al. 2023, authors' code",
        tuple(cells),
        groups=True,
        published=("published",),
        baselines=("ERM", "LDAM-DRW"),
    )


def _setting(dataset: str) -> str:
    return f"{dataset}, ratio 100"


def _of_loss(
    plan: Plan, dataset: str, loss: str, methods: str, length: float, number: str
) -> list[Cell]:
    def cell(name: str, method: str, published: str = "", **fields: Any) -> Cell:
        config = plan.config(dataset, method, model="resnet32", augment="flip_crop", **fields)
        return Cell(_setting(dataset), name, config, (published,))

    def sharp(name: str, form: str, published: str = "", **fields: Any) -> Cell:
        fields = {"rho": length, "statistics": "both"} | fields
        arguments = {f"method__{form}__{field}": value for field, value in fields.items()}
        return cell(f"{loss}, {name}", f"{methods}{form}", published, **arguments)

    cells = [cell(loss, methods.rstrip("+") or "erm"), sharp("SAM", "sam", number)]
    if loss == "DRW":
        return cells
    own: dict[str, Any] = {} if methods else {"rho": 0.05}
    for reading in READINGS:
        cells.append(sharp(f"SAM-A, {reading}", "sam_a", asymmetry=reading, **own))
    return [*cells, sharp("ImbSAM", "imbsam")]


def _focal_sam(plan: Plan, dataset: str) -> Cell:
    config = plan.config(
        dataset,
        "balanced_softmax+focal_sam",
        model="resnet32",
        augment="flip_crop",
        optimizer__weight_decay=FOCAL_DECAY[dataset],
        method__focal_sam__statistics="both",
        # At a higher rate, the schedule and batches are the same.
        **{**WIDE_RECIPE, "optimizer__learning_rate": 0.1},
    )
    return Cell(_setting(dataset), "balanced softmax, Focal-SAM", config)


def _of_imbsam(plan: Plan) -> list[Cell]:
    dataset, cells = "CIFAR-100-LT", list[Cell]()
    for name, (method, number, arguments) in IMBSAM.items():
        config = plan.config(
            dataset,
            method,
            model="resnet34_cifar",
            augment="flip_crop",
            data__rule="first",
            optimizer__weight_decay=1e-3,
            **WIDE_RECIPE,
            **{f"method__{method}__{field}": value for field, value in arguments.items()},
        )
        cells.append(Cell(f"{_setting(dataset)}, ResNet-34 (Zhou et al.)", name, config, (number,)))
    return cells
