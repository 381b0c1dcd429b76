"""Methods of two stages, each with the network and the settings of the source of its number.

Bag of Tricks (Zhang et al. 2021): a ResNet-32 with two last blocks, in the second stage batch norm
in training mode, and tau-normalisation that keeps the bias, neither of which is our default. MiSLAS
(Zhong et al. 2021): mixup, drops of 0.1, and for each data set its smoothing, rate factor and batch
norm. Balanced softmax (Ren et al. 2020): 13,000 and 2,000 iterations of 512 images, with
AutoAugment and Cutout. Weight balancing (Alshammari et al. 2022): ResNet-34, and batch norm in
training mode in the second stage, as in the code. LOS (Sun et al. 2025): the recipe of its code,
whose readme has no numbers.

All but our own last epochs are best epochs on the test set; for weight balancing the last epoch of
the authors' log is known, too.

READING: the first stages of Zhang et al. have the optimiser of Cao et al. Those of weight balancing
have the 320 epochs of the log, without warm-up, and the paper's losses. Nearest class mean has no
number for CIFAR; it is shown on the features of Zhang et al.
DEVIATION: on Places-LT, Zhong et al. train a new block behind a ResNet-152 that stays as it is;
here the whole network trains, with the rates of Zada et al. Their code also changes the brightness,
contrast and saturation of photos.
DEVIATION: the warm-up of Ren et al. begins at half the rate, ours at the first epoch's share of it,
and their second stage follows the best epoch on the test set, ours the last.
"""

from typing import Any

from ml_collections import ConfigDict

from purenoise_jax.config.fields import default_config

from .data_sets import data_cell
from .plan import Cell, Plan, Table

CIFARS = ("CIFAR-10-LT", "CIFAR-100-LT")
# The rate of weight balancing and LOS.
WIDE_RECIPE: dict[str, Any] = {
    "optimizer__learning_rate": 0.01,
    "optimizer__schedule": "cosine",
    "optimizer__milestones": (),
    "optimizer__warmup_epochs": 0,
    "batch_size": 64,
}
# Crop and flip, then the policy, then the hole.
STRONG = ("crop", "flip", "autoaugment", "cutout")

# Bag of Tricks, CIFAR-10-LT at 100 and 50, CIFAR-100-LT at 100 and 50.
TRICKS = {
    "erm": ("ERM", "70.36", "74.81", "38.32", "43.85"),
    "crt": ("cRT", "74.99", "80.17", "40.26", "45.36"),
    "lws": ("LWS", "72.63", "78.66", "40.16", "45.21"),
    "tau_norm": ("tau-normalised", "72.70", "79.78", "40.96", "45.69"),
    "ncm": ("nearest class mean", "", "", "", ""),
}
# Smoothing of the most frequent and the rarest class, rate factor, numbers of both stages.
MISLAS = {
    ("CIFAR-10-LT", 100): (0.3, 0.0, 0.5, "72.8", "82.5"),
    ("CIFAR-10-LT", 50): (0.2, 0.0, 0.2, "78.1", "85.7"),
    ("CIFAR-10-LT", 10): (0.1, 0.0, 0.2, "87.6", "90.0"),
    ("CIFAR-100-LT", 100): (0.4, 0.1, 0.2, "39.5", "47.0"),
    ("CIFAR-100-LT", 50): (0.3, 0.0, 0.1, "45.4", "52.3"),
    ("CIFAR-100-LT", 10): (0.2, 0.0, 0.1, "59.1", "63.2"),
}
MISLAS_ELSEWHERE = {
    "ImageNet-LT, ResNet-50": ("45.5", "52.7"),
    "iNaturalist 2018, ResNet-50": ("66.9", "71.6"),
    "Places-LT, ResNet-152": ("29.4", "40.4"),
}
# Plain softmax, balanced softmax, decoupled, with the meta sampler.
BALANCED = {
    "CIFAR-10-LT": ("74.0", "79.8", "81.8", "82.2"),
    "CIFAR-100-LT": ("41.2", "46.7", "47.2", "48.0"),
}
# Epochs of 13,000 iterations, and of the 800 of the warm-up, by data set and ratio.
ITERATIONS = {
    ("CIFAR-10-LT", 200): (591, 36),
    ("CIFAR-100-LT", 200): (684, 42),
    ("CIFAR-10-LT", 100): (520, 32),
    ("CIFAR-100-LT", 100): (591, 36),
}
# MaxNorm: paper, last epoch of the log.
MAXNORM = {100: ("53.35", "51.83"), 50: ("57.71", ""), 10: ("68.67", "")}


def mislas_config(plan: Plan, dataset: str, ir: int, method: str = "mixup+mislas") -> ConfigDict:
    """Makes the config of MiSLAS, or of its first stage (`method="mixup"`)."""
    head, tail, factor, *_ = MISLAS[dataset, ir]
    fields: dict[str, Any] = {"optimizer__gamma": 0.1}
    if "mislas" in method:
        fields |= {
            "method__mislas__head_smoothing": head,
            "method__mislas__tail_smoothing": tail,
            "method__mislas__lr_factor": factor,
            "method__mislas__bn": "frozen" if dataset == "CIFAR-10-LT" else "shifted",
        }
    return plan.config(dataset, method, model="resnet32", augment="flip_crop", ir=ir, **fields)


def mislas_elsewhere(dataset: str, method: str = "mixup+mislas") -> dict[str, Any]:
    """The settings of MiSLAS, or of its first stage, for `data_cell` and other data than CIFAR.

    Args:
        dataset: of `MISLAS_ELSEWHERE`.
        method: "mixup+mislas", or "mixup" for the first stage.
    """
    if dataset == "ImageNet-LT":
        return {"epochs": 180, "model": "resnet50", "arguments": {"recipe": "mislas"}}
    places = dataset == "Places-LT"
    decay = 5e-4 if places else 1e-4
    given: dict[str, Any] = {
        "epochs": 90 if places else 200,
        "method__mixup__alpha": 0.2,
        "batch_size": 256,
        "optimizer__schedule": "cosine",
        "optimizer__milestones": (),
        "optimizer__gamma": default_config().optimizer.gamma,
        "optimizer__weight_decay": decay,
        "data__augment": ("original_crop", "flip"),
    }
    if not places:
        given["optimizer__learning_rate"] = 0.1
    elif method == "mixup":
        # The scaled head of MiSLAS begins as a linear one.
        given["model__head"] = "linear"
    if "mislas" in method:
        given |= {
            "second_epochs": 10,
            "phases__second_stage__weight_decay": decay,
            "method__mislas__head_smoothing": 0.4 if places else 0.3,
            "method__mislas__tail_smoothing": 0.1 if places else 0.0,
            "method__mislas__lr_factor": 0.05,
            "method__mislas__bn": "shifted",
        }
    return given


def balanced_config(plan: Plan, dataset: str, ir: int, method: str) -> ConfigDict:
    """Makes the config of a method of Ren et al.; `ITERATIONS` has the ratios that it is for."""
    epochs, warmup = ITERATIONS[dataset, ir]
    return plan.config(
        dataset,
        method,
        model="resnet32",
        ir=ir,
        epochs=epochs,
        batch_size=512,
        data__augment=STRONG,
        optimizer__schedule="cosine",
        optimizer__milestones=(),
        optimizer__warmup_epochs=plan.scaled(warmup),
        optimizer__weight_decay=5e-4,
    )


def two_stage(plan: Plan) -> Table:
    """Two-stage methods with the networks and settings of their sources."""
    cells = [*_tricks(plan), *_mislas(plan), *_balanced(plan), *_weight_balancing(plan)]
    return Table(
        "methods of two stages",
        "Zhang et al. 2021; Zhong et al. 2021; Ren et al. 2020, authors' code; Alshammari et al. "
        "2022 (best epochs on the test set)",
        tuple(cells),
        published=("published", "last epoch"),
    )


def _tricks(plan: Plan) -> list[Cell]:
    cells = []
    for column, (dataset, ir) in enumerate([(d, ir) for d in CIFARS for ir in (100, 50)], start=1):
        setting = f"{dataset}, ratio {ir}, ResNet-32 of BBN (Bag of Tricks)"
        for method, line in TRICKS.items():
            fields: dict[str, Any] = {}
            if method in ("crt", "lws"):
                fields[f"method__{method}__bn"] = "shifted"
            elif method == "tau_norm":
                fields["method__tau_norm__bias"] = True
            config = plan.config(
                dataset, method, model="resnet32_bbn", augment="flip_crop", ir=ir, **fields
            )
            cells.append(Cell(setting, line[0], config, line[column]))
    return cells


def _mislas(plan: Plan) -> list[Cell]:
    cells = []
    for (dataset, ir), (*_, first, second) in MISLAS.items():
        setting = f"{dataset}, ratio {ir}, ResNet-32 (MiSLAS)"
        for method, name, number in (
            ("mixup", "mixup, its first stage", first),
            ("mixup+mislas", "MiSLAS", second),
        ):
            cells.append(Cell(setting, name, mislas_config(plan, dataset, ir, method), number))
    for setting, (first, second) in MISLAS_ELSEWHERE.items():
        dataset = setting.partition(",")[0]
        for method, name, number in (
            ("mixup", "mixup, its first stage", first),
            ("mixup+mislas", "MiSLAS", second),
        ):
            given = mislas_elsewhere(dataset, method)
            cells.append(data_cell(plan, dataset, setting, name, number, method, **given))
    return cells


def _balanced(plan: Plan) -> list[Cell]:
    cells = []
    for dataset, numbers in BALANCED.items():
        setting = f"{dataset}, ratio 200, ResNet-32, AutoAugment (balanced softmax)"
        for method, name, number in (
            ("erm", "ERM", numbers[0]),
            ("balanced_softmax", "balanced softmax", numbers[1]),
            ("decoupled_softmax", "decoupled balanced softmax", numbers[2]),
            ("meta_sampler", "BALMS", numbers[3]),
        ):
            cells.append(Cell(setting, name, balanced_config(plan, dataset, 200, method), number))
    return cells


def _weight_balancing(plan: Plan) -> list[Cell]:
    def config(method: str, ir: int, decay: float = 5e-3, **fields: Any) -> ConfigDict:
        return plan.config(
            "CIFAR-100-LT",
            method,
            model="resnet34_cifar",
            augment="flip_crop",
            ir=ir,
            optimizer__weight_decay=decay,
            **WIDE_RECIPE,
            **fields,
        )

    cells = []
    for ir, (paper, last) in MAXNORM.items():
        setting = f"CIFAR-100-LT, ratio {ir}, ResNet-34 (weight balancing, LOS)"
        if ir == 100:
            plain = config("erm", ir, 0.0, epochs=320)
            cells.append(Cell(setting, "ERM, no weight decay", plain, "38.3"))
        first = ("46.1", "46.76") if ir == 100 else ("", "")
        cells.append(Cell(setting, "ERM, weight decay 5e-3", config("erm", ir, epochs=320), *first))
        second = config("maxnorm", ir, epochs=320, second_epochs=10, method__maxnorm__bn="shifted")
        cells.append(Cell(setting, "MaxNorm", second, paper, last))
        cells.append(Cell(setting, "ERM, 200 epochs", config("erm", ir)))
        cells.append(Cell(setting, "LOS", config("los", ir)))
    return cells
