"""The CIFAR tables of the two pure-noise papers, and one of our own, as lists of runs.

A table is a list of cells; a cell is a config and the numbers published for it, which are test
accuracies in percent, as printed in the paper (Zada, Benou and Irani 2022) and in its reproduction
(Lee and Lee 2023, one run per number).
"""

from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.config import packaged, parts
from purenoise_jax.models.norm import NOISE_GRADS

from .plan import Cell, Plan, Table

NAMES = {"erm": "ERM", "rs": "RS", "drs": "DRS", "open": "OPeN"}
NORM_NAMES = {"bn": "Standard BN", "aux_bn": "Auxiliary BN", "dar_bn": "DAR-BN"}
CUI = packaged.folder() / "subsets" / "cifar10_lt_100_cui.npy"
# Start of the deferred phase as a fraction of all epochs.
DEFERRED = 0.8


def main_comparison(plan: Plan) -> Table:
    """ERM, RS, DRS and OPeN on both CIFARs at both ratios, and with AutoAugment."""
    published = {
        ("CIFAR-10-LT", 100): (("79.6 ± 0.2", "81.18"), ("75.1 ± 0.4", "74.82"),
                               ("83.0", "83.22"), ("84.6 ± 0.2", "85.04")),
        ("CIFAR-10-LT", 50): (("84.9 ± 0.4", "84.9"), ("82.2 ± 0.4", "80.9"), ("", "86.9"),
                              ("87.9 ± 0.2", "87.8")),
        ("CIFAR-100-LT", 100): (("47.0 ± 0.5", "47.1"), ("42.5 ± 0.3", "41.6"), ("", "50.8"),
                                ("51.5 ± 0.4", "52.1")),
        ("CIFAR-100-LT", 50): (("52.4 ± 0.4", "52.7"), ("48.0 ± 0.2", "46.5"), ("", "55.8"),
                               ("56.3 ± 0.4", "56.5")),
    }  # fmt: skip
    automatic = {
        ("CIFAR-10-LT", 100): ("81.4 ± 0.3", "86.1 ± 0.1"),
        ("CIFAR-10-LT", 50): ("86.4 ± 0.2", "89.2 ± 0.2"),
        ("CIFAR-100-LT", 100): ("49.9 ± 0.4", "54.2 ± 0.5"),
        ("CIFAR-100-LT", 50): ("55.7 ± 0.4", "59.8 ± 0.5"),
    }
    cells = []
    for (dataset, ir), values in published.items():
        setting = f"{dataset}, ratio {ir}"
        for method, (paper, again) in zip(("erm", "rs", "drs", "open"), values, strict=True):
            config = plan.config(dataset, method, ir=ir)
            cells.append(Cell(setting, NAMES[method], config, (paper, again)))
        for method, paper in zip(("erm", "open"), automatic[dataset, ir], strict=True):
            config = plan.config(dataset, method, ir=ir, augment="autoaugment")
            cells.append(Cell(setting, f"{NAMES[method]}, AutoAugment", config, (paper,)))
    return Table(
        "main comparison", "Zada et al., table 1 and figure 3; Lee and Lee, tables 3 and 11",
        tuple(cells),
    )  # fmt: skip


def norms(plan: Plan) -> Table:
    """OPeN with each batch norm, both networks."""
    values = {
        ("CIFAR-10-LT", "wrn28_10"): (("81.45 ± 0.70", "81.81"), ("83.38 ± 0.16", "82.23"),
                                      ("84.64 ± 0.16", "85.04")),
        ("CIFAR-100-LT", "wrn28_10"): (("49.18 ± 0.54", "49.26"), ("50.13 ± 0.06", "51.27"),
                                       ("51.50 ± 0.44", "52.12")),
        ("CIFAR-10-LT", "resnet32"): (("", "74.37"), ("", "75.08"), ("", "77.52")),
    }  # fmt: skip
    cells = []
    for dataset, networks in (
        ("CIFAR-10-LT", ("wrn28_10", "resnet32")),
        ("CIFAR-100-LT", ("wrn28_10",)),
    ):
        for model in plan.models(*networks):
            augment = "flip_crop" if model == "resnet32" else ""
            published = values.get((dataset, model), (("", ""),) * len(NORM_NAMES))
            for norm, (paper, again) in zip(NORM_NAMES, published, strict=True):
                config = _with_norm(plan, dataset, norm, model=model, augment=augment)
                cells.append(Cell(f"{dataset}, {model}", NORM_NAMES[norm], config, (paper, again)))
    return Table(
        "batch norm ablation of OPeN, ratio 100",
        "Zada et al., table 4; Lee and Lee, tables 4 and 8",
        tuple(cells),
    )


def augmentation(plan: Plan) -> Table:
    """ERM, DRS and OPeN under augmentations of increasing strength."""
    values = {
        "flip_crop": (("74.3", "74.6"), ("76.5", "75.4"), ("80.3", "79.9")),
        "cutout": (("77.7", "78.7"), ("80.3", "79.5"), ("83.1", "83.9")),
        "simclr": (("79.6", "80.7"), ("83.0", "83.2"), ("84.6", "84.3")),
        "autoaugment": (("81.4 ± 0.3", ""), ("", ""), ("86.1 ± 0.1", "")),
    }
    titles = {
        "flip_crop": "flip, crop",
        "cutout": "+ Cutout",
        "simclr": "+ SimCLR",
        "autoaugment": "AutoAugment",
    }
    cells = [
        Cell(titles[augment], NAMES[method], plan.config("CIFAR-10-LT", method, augment=augment), v)
        for augment, published in values.items()
        for method, v in zip(("erm", "drs", "open"), published, strict=True)
    ]
    return Table(
        "augmentation ablation, CIFAR-10-LT, ratio 100",
        "Zada et al., table 1 (AutoAugment) and figure 3; Lee and Lee, table 5",
        tuple(cells),
    )


def balanced(plan: Plan) -> Table:
    """Balanced CIFAR with and without a fixed share of appended noise."""
    deferred = max(round(DEFERRED * plan.epochs), 1)
    values = {
        ("CIFAR-10", "wrn28_10"): ("87.16", "88.57"),
        ("CIFAR-10", "resnet32"): ("86.51", "86.19"),
    }
    cells = []
    for dataset in ("CIFAR-10", "CIFAR-100"):
        networks = ("wrn28_10", "resnet32") if dataset == "CIFAR-10" else ("wrn28_10",)
        for model in plan.models(*networks):
            again = values.get((dataset, model), ("", ""))
            setting = f"{dataset}, {model}"
            for augment, title in (("flip_crop", "flip, crop"), ("autoaugment", "AutoAugment")):
                # Lee and Lee do not say from which epoch on there is noise. READING: they have
                # AutoAugment, which they name for WRN-28-10, with ResNet-32 as well.
                plain, noisy = again if augment == "autoaugment" else ("", "")
                config = plan.config(dataset, "erm", model=model, augment=augment)
                cells.append(Cell(setting, f"{title}, no noise", config, ("", plain)))
                for start in sorted({0, deferred}):
                    if start < plan.epochs:
                        config = plan.config(
                            dataset, "append", model=model, augment=augment, start=start
                        )
                        label = f"{title}, noise from epoch {start}"
                        cells.append(Cell(setting, label, config, ("", noisy)))
    return Table(
        "balanced data, Adam at 1e-3 (the paper reports gains only: AutoAugment and noise over "
        "flip and crop +2.38 and +6.34, over AutoAugment +0.9 and +1.5; the reproduction does not "
        "say from which epoch on it had noise)",
        "Zada et al., section 5; Lee and Lee, tables 6 and 9",
        tuple(cells),
    )


def resnet32(plan: Plan) -> Table:
    """The four methods with ResNet-32, flip and crop."""
    again = {"erm": "71.70", "rs": "70.09", "drs": "75.78", "open": "77.52"}
    cells = [
        Cell(
            "CIFAR-10-LT, ratio 100",
            NAMES[method],
            plan.config("CIFAR-10-LT", method, model="resnet32", augment="flip_crop"),
            ("", number),
        )
        for method, number in again.items()
    ]
    return Table("ResNet-32, flip and crop", "Lee and Lee, table 7", tuple(cells))


def subsets(plan: Plan) -> Table:
    """Three rules for the images of the subset."""
    values: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "Cui et al.": ({"data__indices": str(CUI)}, ("79.26", "80.87", "84.19")),
        "M2m (Kim et al.)": ({"data__rule": "first"}, ("78.37", "81.64", "87.11")),
        "Cao et al.": ({}, ("81.18", "83.22", "85.04")),
    }
    cells = [
        Cell(source, NAMES[method], plan.config("CIFAR-10-LT", method, **fields), ("", number))
        for source, (fields, numbers) in values.items()
        for method, number in zip(("erm", "drs", "open"), numbers, strict=True)
    ]
    return Table(
        "three subsets of the same class counts, CIFAR-10-LT, ratio 100",
        "Lee and Lee, table 10",
        tuple(cells),
    )


def normalization(plan: Plan) -> Table:
    """Three sources of the statistics that normalise images."""
    constants = {
        "data__normalize": "explicit",
        "data__normalize_mean": parts.RESCIENCE_MEAN,
        "data__normalize_std": parts.RESCIENCE_STD,
    }

    def named(which: str) -> dict[str, Any]:
        return {
            "data__normalize": which,
            "data__normalize_mean": (),
            "data__normalize_std": (),
        }

    values = {
        "customary constants": (constants, ("81.18", "83.22", "85.04")),
        "whole training set": (named("full_train"), ("80.50", "82.39", "84.72")),
        "long-tailed subset": (named("train_subset"), ("", "", "")),
    }
    cells = [
        Cell(source, NAMES[method], plan.config("CIFAR-10-LT", method, **fields), ("", number))
        for source, (fields, numbers) in values.items()
        for method, number in zip(("erm", "drs", "open"), numbers, strict=True)
    ]
    return Table(
        "input normalisation, CIFAR-10-LT, ratio 100 (the reproduction's last row is not to be "
        "read in its text)",
        "Lee and Lee, tables 12 and 14",
        tuple(cells),
    )


def batch_size(plan: Plan) -> Table:
    """Batch sizes at one learning rate."""
    values = {
        32: ("74.38", "80.15", "80.50"),
        64: ("78.69", "82.89", "83.89"),
        128: ("81.18", "83.22", "85.04"),
        256: ("79.11", "75.28", "82.36"),
        512: ("75.19", "71.39", "79.22"),
    }
    cells = [
        Cell(
            f"batch {size}",
            NAMES[method],
            plan.config("CIFAR-10-LT", method, batch_size=size),
            ("", number),
        )
        for size, numbers in values.items()
        for method, number in zip(("erm", "drs", "open"), numbers, strict=True)
    ]
    return Table("batch size, CIFAR-10-LT, ratio 100", "Lee and Lee, table 15", tuple(cells))


def noise_ratio(plan: Plan) -> Table:
    """The fraction delta of noise among oversampled images."""
    again = ("83.23", "85.04", "84.34", "84.23", "83.31", "80.01")
    cells = [
        Cell(
            "OPeN",
            f"delta {sixths}/6",
            plan.config("CIFAR-10-LT", "open", method__open__delta=sixths / 6),
            ("84.6 ± 0.2" if sixths == 2 else "", number),
        )
        for sixths, number in enumerate(again, start=1)
    ]
    return Table("noise ratio, CIFAR-10-LT, ratio 100", "Lee and Lee, table 16", tuple(cells))


def additive(plan: Plan) -> Table:
    """Additive Gaussian noise of growing strength in place of pure noise, both norms."""
    cells = []
    for norm in ("dar_bn", "bn"):
        for strength in (10, 25, 50, 75, 100, 150, 0):
            fields: dict[str, Any] = {"method__open__additive_std": strength / 255}
            if strength:
                fields["method__open__space"] = "pixel"
            config = _with_norm(plan, "CIFAR-100-LT", norm, **fields)
            label = f"std {strength}/255" if strength else "pure noise"
            cells.append(Cell(NORM_NAMES[norm], label, config))
    return Table(
        "additive noise, CIFAR-100-LT, ratio 100 (published as a figure without numbers)",
        "Zada et al., appendix B, figure 6",
        tuple(cells),
        groups=True,
    )


def noise_grad(plan: Plan) -> Table:
    """Norm, gradient of noise and noise space: a grid that nobody has published."""
    cells = []
    for space in ("pixel", "raw"):
        for norm in NORM_NAMES:
            for reading in NOISE_GRADS:
                # "auto" is the same reading, and makes it the run that other tables have, too.
                own = reading == ("affine_stop" if norm == "dar_bn" else "none")
                config = _with_norm(
                    plan,
                    "CIFAR-10-LT",
                    norm,
                    model__noise_grad="auto" if own else reading,
                    method__open__space=space,
                )
                cells.append(Cell(f"{NORM_NAMES[norm]}, noise in {space} space", reading, config))
    return Table(
        "batch norm, gradient of noise and noise space, OPeN, CIFAR-10-LT, ratio 100",
        "new",
        tuple(cells),
        groups=True,
    )


def _with_norm(plan: Plan, dataset: str, norm: str, **options: Any) -> ConfigDict:
    # The presets are for DAR-BN; the baselines let all gradients through, as published.
    if norm != "dar_bn":
        options = {"model__noise_grad": "auto", **options}
    return plan.config(dataset, "open", model__norm=norm, **options)
