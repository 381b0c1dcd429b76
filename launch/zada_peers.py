"""Tables 1 to 3 of Zada et al.: every method that they compare OPeN with, on every data set.

Rows on CIFAR have WRN-28-10 and the paper's augmentation, as its own runs and those that it
repeated. Rows whose numbers it takes from other papers are trained as there, with ResNet-32: MiSLAS
with flip and crop, BALMS with AutoAugment.

READING: the paper names no settings of LDAM-DRW and M2m; they have our defaults, which are those of
their authors for CIFAR-10-LT, and all rows the images of Cao et al. The "Oversampling" of table 1
is from the first epoch on, as in the reproduction.
"""

from .plan import Cell, Plan, Table
from .two_stage import balanced_config, mislas_config

# CIFAR-10-LT at 100 and 50, CIFAR-100-LT at 100 and 50, CelebA-5.
ROWS: tuple[tuple[str, str, str, tuple[str, str, str, str, str]], ...] = (
    ("ERM", "erm", "",
     ("79.6 ± 0.2", "84.9 ± 0.4", "47.0 ± 0.5", "52.4 ± 0.4", "78.6 ± 0.1")),
    ("Oversampling", "rs", "",
     ("75.1 ± 0.4", "82.2 ± 0.4", "42.5 ± 0.3", "48.0 ± 0.2", "76.4 ± 0.2")),
    ("LDAM-DRW", "ldam+drw", "",
     ("80.5 ± 0.6", "85.3 ± 0.2", "46.8 ± 0.2", "52.6 ± 0.2", "78.5 ± 0.5")),
    ("M2m", "m2m", "",
     ("81.3 ± 0.4", "85.5 ± 0.3", "46.5 ± 0.5", "52.9 ± 0.2", "76.9 ± 0.4")),
    ("MiSLAS, ResNet-32", "mixup+mislas", "", ("82.1", "85.7", "47.0", "52.3", "")),
    ("OPeN", "open", "",
     ("84.6 ± 0.2", "87.9 ± 0.2", "51.5 ± 0.4", "56.3 ± 0.4", "79.7 ± 0.2")),
    ("ERM, AutoAugment", "erm", "autoaugment",
     ("81.4 ± 0.3", "86.4 ± 0.2", "49.9 ± 0.4", "55.7 ± 0.4", "79.3 ± 0.5")),
    ("BALMS, ResNet-32, AutoAugment", "meta_sampler", "", ("84.9", "", "50.8", "", "")),
    ("OPeN, AutoAugment", "open", "autoaugment",
     ("86.1 ± 0.1", "89.2 ± 0.2", "54.2 ± 0.5", "59.8 ± 0.5", "80.9 ± 0.4")),
)  # fmt: skip
IMAGENET = {
    "ERM": "51.1",
    "Oversampling": "49.0",
    "BALMS": "52.1",
    "LADE": "53.0",
    "MiSLAS, ResNet-50": "52.7",
    "MiSLAS": "53.7",
    "OPeN": "55.1",
}
PLACES = {
    "ERM": "29.9",
    "Oversampling": "38.1",
    "BALMS": "38.7",
    "LADE": "38.8",
    "MiSLAS": "40.4",
    "OPeN": "40.5",
}


def zada_peers(plan: Plan) -> Table:
    """Every method that Zada et al. compare OPeN with, on all five data sets."""
    cells = []
    columns = [(name, ir) for name in ("CIFAR-10-LT", "CIFAR-100-LT") for ir in (100, 50)]
    for column, (dataset, ir) in enumerate(columns):
        for name, method, augment, numbers in ROWS:
            setting, number = f"{dataset}, ratio {ir}", numbers[column]
            if method == "meta_sampler":
                if number:
                    config = balanced_config(plan, dataset, ir, method)
                    cells.append(Cell(setting, name, config, (number,)))
            elif method == "mixup+mislas":
                cells.append(Cell(setting, name, mislas_config(plan, dataset, ir), (number,)))
            else:
                config = plan.config(dataset, method, ir=ir, augment=augment)
                cells.append(Cell(setting, name, config, (number,)))
    for name, _, _, numbers in ROWS:
        if numbers[4]:
            cells.append(Cell("CelebA-5", name, None, (numbers[4],), "CelebA-5"))
    for setting, needs, published in (
        ("ImageNet-LT, ResNeXt-50", "ImageNet-LT", IMAGENET),
        ("Places-LT, ResNet-152 pre-trained on ImageNet", "Places-LT", PLACES),
    ):
        cells += [Cell(setting, name, None, (n,), needs) for name, n in published.items()]
    return Table(
        "OPeN and the methods it is compared with",
        "Zada et al., tables 1 to 3",
        tuple(cells),
        groups=True,
        published=("paper",),
        baselines=("ERM",),
    )
