"""Ladders of components from plain training upwards, with and without OPeN.

A row adds one component to the row above; a row with "OPeN" is the same with OPeN from the first
drop of the learning rate on. Nobody has published OPeN with any of them. Two ladders for either
data set at ratio 100:

ResNet-32, with the recipe of Wang et al. 2023: 400 epochs, AutoAugment and Cutout, VS, SAM, then
ADRW and TLA. Its highest numbers, 86.42 and 53.05, are means of several runs. The lengths of the
ascent step and the weight decays are those of their script, for every loss its own.

ResNet-34 with a stem for small images, a rate of 0.01, batches of 64 and a cosine: weight decay
5e-3, AutoAugment and Cutout, VS, SAM, and the second stage of MaxNorm. To compare with, one run
each: 88.50 and 57.97 (GLMC), 89.58 and 58.41 (with MaxNorm), 89.18 and 59.01 (with SAM), 90.08 and
59.50 (BCE3S, of whose own log no epoch exceeds 58.32). The first three are trained here with the
network of GLMC, a ResNet-32 four times as wide, and its settings. All published numbers are best
epochs on the test set, except those of BCE3S. Higher ones are printed for SCoRe on top of GLMC
(92.33 and 61.33), near numbers that the authors of GLMC withdrew; it is not here.

READING: OPeN draws classes evenly, so a loss that is adjusted to their frequencies would adjust
twice. It therefore ends where OPeN begins ("then OPeN"), and DRW gives way to it. ADRW and TLA
belong to the same epochs as OPeN, so their rows have both ("OPeN at once"), as has the last row of
ResNet-34.
READING: the length of the ascent step of the wide networks and of ResNet-34 is the 0.05 of GLMC
with SAM. Versions of that repository have ResNet-32 or ResNet-34; here that row has the network of
GLMC.
READING: Wang et al. crop and flip before AutoAugment.
DEVIATION: Wang et al. take a longer ascent step in the last fifth of the epochs (0.2 and 0.4 with
ADRW and TLA); here its length is that before. Their rate climbs to 0.2 in the first ten epochs, and
is 0.1 after them; here it climbs to 0.1. GLMC with SAM ascends only on the classification terms,
ours on the whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .plan import Cell, Plan, Table
from .two_stage import STRONG, WIDE_RECIPE

CIFARS = ("CIFAR-10-LT", "CIFAR-100-LT")
# Length of the ascent step and weight decay by loss, for CIFAR-10-LT and CIFAR-100-LT.
LENGTHS = {"erm": (0.1, 0.2), "ldam+drw": (0.4, 0.5), "vs": (0.1, 0.3), "adrw+tla": (0.1, 0.2)}
DECAYS = {"erm": (1e-4, 1e-4), "ldam+drw": (5e-5, 1e-4)}
WIDE_LENGTH = 0.05
# Of ResNet-32, in the phase of ADRW and TLA.
DEFERRED_DECAY: tuple[dict[str, Any], dict[str, Any]] = (
    {},
    {"phases__deferred__weight_decay": 5e-4},
)
# As in all published code; neither is our default.
SAM_STATISTICS = {"method__sam__statistics": "both"}
MAXNORM = {"method__maxnorm__bn": "shifted"}


def ladder(plan: Plan) -> Table:
    """One component after the other, with and without OPeN, against the highest numbers."""
    cells = []
    for column, dataset in enumerate(CIFARS):
        cells += [*_resnet32(plan, dataset, column), *_resnet34(plan, dataset, column)]
        cells += _wide(plan, dataset, column)
    return Table(
        "ladders of components, ratio 100",
        "the code of Wang et al. 2023 (mean ± error), and of Du et al. 2023, Rangwani et al. 2022 "
        "and BCE3S (one run each); best epochs on the test set, except BCE3S",
        tuple(cells),
        groups=True,
        published=("published",),
        baselines=("ERM",),
    )


class _Rungs:
    """Rows of one ladder.

    Attributes:
        cells: the rows so far.
    """

    def __init__(self, plan: Plan, dataset: str, setting: str, **common: Any) -> None:
        self.cells: list[Cell] = []
        self._plan, self._dataset, self._setting = plan, dataset, setting
        self._common = common

    def add(self, name: str, method: str, published: str = "", **fields: Any) -> None:
        """Adds a row; `fields` are those of `Plan.config`."""
        config = self._plan.config(self._dataset, method, **{**self._common, **MAXNORM, **fields})
        self.cells.append(Cell(self._setting, name, config, (published,)))

    def add_both(self, name: str, method: str, published: str = "", **fields: Any) -> None:
        """Adds a row without OPeN and one with it, which takes the place of VS or DRW."""
        self.add(name, method, published, **fields)
        names = [n for n in method.split("+") if n not in ("erm", "maxnorm")]
        if "vs" in names:
            kept = tuple(n for n in names if n != "vs")
            fields["phases__deferred__methods"] = (*kept, "open")
            title = f"{name}, then OPeN"
        elif "drw" in names:
            names.remove("drw")
            title = f"{name}, OPeN in place of DRW"
        else:
            title = f"{name}, OPeN"
        self.add(title, _with_open(names, method), **fields)

    def add_at_once(self, name: str, method: str, published: str = "", **fields: Any) -> None:
        """Adds a row without OPeN and one with it beside all other methods."""
        self.add(name, method, published, **fields)
        names = [n for n in method.split("+") if n != "maxnorm"]
        self.add(f"{name}, OPeN at once", _with_open(names, method), **fields)


def _with_open(names: Sequence[str], method: str) -> str:
    """Methods of the training and OPeN, before the second stage that another method has."""
    return "+".join([*names, "open", *(n for n in method.split("+") if n == "maxnorm")])


def _resnet32(plan: Plan, dataset: str, column: int) -> list[Cell]:
    def of(*numbers: str) -> str:
        return numbers[column]

    def sam(loss: str) -> dict[str, Any]:
        fields = {**SAM_STATISTICS, "method__sam__rho": LENGTHS[loss][column]}
        if loss in DECAYS:
            fields["optimizer__weight_decay"] = DECAYS[loss][column]
        return fields

    setting = f"{dataset}, ResNet-32"
    rungs = _Rungs(plan, dataset, setting, model="resnet32", augment="flip_crop")
    rungs.add_both("ERM", "erm", of("71.25 ± 0.10", "38.06 ± 1.03"))
    rungs.add_both("LDAM-DRW", "ldam+drw", of("77.97 ± 0.17", "42.73 ± 0.28"))
    rungs.add_both("VS", "vs", of("80.29 ± 0.23", "42.67 ± 0.48"))
    # The published row of the usual recipe is without the tuned weight decay.
    rungs.add_at_once("VS, ADRW, TLA", "vs+adrw+tla", of("80.81 ± 0.05", "43.20 ± 0.05"))
    strong: Mapping[str, Any] = {"epochs": 400, "data__augment": STRONG}
    rungs.add_both("400 epochs, AutoAugment, Cutout", "erm", **strong)
    rungs.add_both("+ VS", "vs", **strong)
    number = of("86.29 ± 0.13", "52.09 ± 0.12")
    rungs.add_both("+ SAM", "vs+sam", number, **strong, **sam("vs"))
    whole = {**strong, **sam("adrw+tla"), **DEFERRED_DECAY[column]}
    number = of("86.42 ± 0.10", "53.05 ± 0.12")
    rungs.add_at_once("+ ADRW, TLA", "vs+sam+adrw+tla", number, **whole)
    rungs.add_at_once("+ MaxNorm", "vs+sam+adrw+tla+maxnorm", **whole)
    number = of("79.75 ± 0.46", "45.70 ± 0.35")
    rungs.add_both("ERM with SAM, the same epochs", "sam", number, **strong, **sam("erm"))
    number = of("86.15 ± 0.16", "50.67 ± 0.25")
    rungs.add_both(
        "LDAM-DRW with SAM, the same epochs", "ldam+drw+sam", number, **strong, **sam("ldam+drw")
    )
    return rungs.cells


def _resnet34(plan: Plan, dataset: str, column: int) -> list[Cell]:
    setting = f"{dataset}, ResNet-34"
    common: dict[str, Any] = {"model": "resnet34_cifar", "augment": "flip_crop", **WIDE_RECIPE}
    rungs = _Rungs(plan, dataset, setting, **common)
    rungs.add_both("ERM", "erm")
    fields: dict[str, Any] = {"optimizer__weight_decay": 5e-3}
    rungs.add_both("+ weight decay 5e-3", "erm", **fields)
    fields["data__augment"] = STRONG
    rungs.add_both("+ AutoAugment, Cutout", "erm", **fields)
    rungs.add_both("+ VS", "vs", **fields)
    fields |= {**SAM_STATISTICS, "method__sam__rho": WIDE_LENGTH}
    rungs.add_both("+ SAM", "vs+sam", **fields)
    rungs.add_both("+ MaxNorm", "vs+sam+maxnorm", **fields)
    rungs.add("+ SAM, OPeN at once with VS", "vs+sam+open", **fields)
    return rungs.cells


def _wide(plan: Plan, dataset: str, column: int) -> list[Cell]:
    def of(*numbers: str) -> str:
        return numbers[column]

    setting = f"{dataset}, ResNet-32 of first width 64"
    common: dict[str, Any] = {"model": "resnet32_w64", "augment": "flip_crop", **WIDE_RECIPE}
    common |= {"optimizer__weight_decay": 5e-3, "optimizer__warmup_epochs": plan.scaled(10)}
    sam: dict[str, Any] = {**SAM_STATISTICS, "method__sam__rho": WIDE_LENGTH}
    rungs = _Rungs(plan, dataset, setting, **common)
    rungs.add_both("GLMC", "glmc", of("88.50", "57.97"))
    rungs.add_both("GLMC, MaxNorm", "glmc+maxnorm", of("89.58", "58.41"))
    rungs.add_both("GLMC, SAM", "glmc+sam", of("89.18", "59.01"), **sam)
    rungs.add_both("GLMC, SAM, MaxNorm", "glmc+sam+maxnorm", **sam)
    published = of("90.08", "59.50")
    return [*rungs.cells, Cell(setting, "BCE3S, ResNet-34", None, (published,), "BCE3S")]
