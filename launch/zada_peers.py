"""Tables 1 to 3 of Zada et al.: every method that they compare OPeN with, on every data set.

Rows on CIFAR have WRN-28-10 and the paper's augmentation, as its own runs and those that it
repeated. Rows whose numbers it takes from other papers are trained as there, with ResNet-32: MiSLAS
with flip and crop, BALMS with AutoAugment.

READING: the paper names no settings of LDAM-DRW and M2m; they have our defaults, which are those of
their authors for CIFAR-10-LT, and all rows the images of Cao et al. The "Oversampling" of table 1
is from the first epoch on, as in the reproduction.

Rows on other data sets are trained where the command line has their place. On CelebA-5 and
Places-LT they have the paper's recipe but for what their sources change; on ImageNet-LT each has
the recipe of the source of its number.
READING: "BALMS" of table 2 is quoted from Hong et al., whose code trains with balanced softmax
alone, so that is trained here, for the 90 epochs of its config. For the "MiSLAS" that the paper
repeated with ResNeXt-50 it gives no settings; they are those of MiSLAS.
READING: on Places-LT, BALMS follows plain training with the paper's recipe and a linear head, and
LADE has the paper's schedule, whose second drop is five epochs earlier than in its authors' config.
DEVIATION: the meta sampler draws images within a step, so there they lie on the device, and random
crops are cut from the central 224 x 224 instead of the originals.
"""

from typing import Any

from .data_sets import data_cell
from .plan import Cell, Plan, Table
from .two_stage import balanced_config, mislas_config, mislas_elsewhere

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
# Number, method, epochs, recipe of configs/imagenet_lt.py, network.
RESNEXT = "resnext50_32x4d"
IMAGENET: dict[str, tuple[str, str, int, str, str]] = {
    "ERM": ("51.1", "erm", 220, "open", RESNEXT),
    "Oversampling": ("49.0", "rs", 220, "open", RESNEXT),
    "BALMS": ("52.1", "balanced_softmax", 90, "lade", RESNEXT),
    "LADE": ("53.0", "lade", 180, "lade", RESNEXT),
    "MiSLAS, ResNet-50": ("52.7", "mixup+mislas", 180, "mislas", "resnet50"),
    "MiSLAS": ("53.7", "mixup+mislas", 180, "mislas", RESNEXT),
    "OPeN": ("55.1", "open", 220, "open", RESNEXT),
}
# Number, method, and what differs from configs/places_lt.py.
PLACES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ERM": ("29.9", "erm", {}),
    "Oversampling": ("38.1", "rs", {}),
    "BALMS": ("38.7", "meta_sampler",
              {"second_epochs": 10, "phases__second_stage__learning_rate": 0.02,
               "data__augment": ("resized_crop", "simclr_scaled", "rotation"),
               "data__feed": "resident"}),
    "LADE": ("38.8", "lade",
             {"method__lade__alpha": 0.005, "method__lade__penalty": 0.1, "model__head": "linear",
              "batch_size": 128}),
    "MiSLAS": ("40.4", "mixup+mislas", mislas_elsewhere("Places-LT")),
    "OPeN": ("40.5", "open", {}),
}  # fmt: skip


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
    cells += [*_celeba(plan), *_imagenet(plan), *_places(plan)]
    return Table(
        "OPeN and the methods it is compared with",
        "Zada et al., tables 1 to 3",
        tuple(cells),
        groups=True,
        published=("paper",),
        baselines=("ERM",),
    )


def _celeba(plan: Plan) -> list[Cell]:
    dataset, cells = "CelebA-5", list[Cell]()
    for name, method, augment, numbers in ROWS:
        if numbers[4]:
            arguments = {"augment": augment} if augment else {}
            cells.append(
                data_cell(
                    plan, dataset, dataset, name, numbers[4], method, epochs=90, arguments=arguments
                )
            )
    return cells


def _imagenet(plan: Plan) -> list[Cell]:
    dataset, setting = "ImageNet-LT", "ImageNet-LT, ResNeXt-50"
    return [
        data_cell(
            plan,
            dataset,
            setting,
            name,
            number,
            method,
            epochs=epochs,
            model=model,
            arguments={"recipe": recipe},
        )
        for name, (number, method, epochs, recipe, model) in IMAGENET.items()
    ]


def _places(plan: Plan) -> list[Cell]:
    dataset, setting = "Places-LT", "Places-LT, ResNet-152 pre-trained on ImageNet"
    return [
        data_cell(plan, dataset, setting, name, number, method, **{"epochs": 30, **given})
        for name, (number, method, given) in PLACES.items()
    ]
