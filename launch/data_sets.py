"""The data sets of tables beside CIFAR: their config files, and the place of their files.

Nobody may pass them on, so a cell about one is run only if the command line names its place.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from purenoise_jax.config import packaged
from purenoise_jax.config.parts import beside
from purenoise_jax.config.validation_images import VALIDATION_RULES
from purenoise_jax.data.sources.published_lists import PUBLISHED
from purenoise_jax.data.sources.where import where
from purenoise_jax.runtime.errors import ConfigError, unknown
from purenoise_jax.runtime.paths import expand

from .plan import EPOCHS, Cell, Plan

OPTION = "--data-set"


class DataSet(NamedTuple):
    """A data set.

    Attributes:
        config: name of its config file.
        lists: config field -> published name of the file.
        weights: file of weights that its recipe begins with; "" = random parameters.
    """

    config: str
    lists: Mapping[str, str] = {}
    weights: str = ""


def _lists(form: str, **splits: str) -> dict[str, str]:
    return {f"data.{split}_list": form.format(name) for split, name in splits.items()}


THREE = {"train": "train", "val": "val", "test": "test"}
DATA_SETS = {
    "CINIC-10": DataSet("cinic10_lt"),
    "CelebA-5": DataSet("celeba5", _lists("celebA_{}_orig.txt", **THREE)),
    "ImageNet-LT": DataSet("imagenet_lt", _lists("ImageNet_LT_{}.txt", **THREE)),
    "Places-LT": DataSet(
        "places_lt", _lists("Places_LT_{}.txt", **THREE), weights="resnet152.safetensors"
    ),
    "iNaturalist 2018": DataSet(
        "inaturalist18", _lists("iNaturalist18_{}.txt", train="train", test="val")
    ),
}
# data.name -> classes, and training images before a subset is cut.
SIZES = {name: (each.classes, each.images) for name, each in PUBLISHED.items()} | {
    "cifar10": (10, 50_000),
    "cifar100": (100, 50_000),
    "cinic10": (10, 90_000),
}
# Side of the images of a quick run.
QUICK_SIZE = 32
# Fields of a plan that are about CIFAR.
OF_CIFAR = {"data.source", "data.path", "data.image_size", "data.profile"}
HELD_OUT = {"data.fold", *(f"data.{rule}" for rule in VALIDATION_RULES)}


def places(given: Iterable[str]) -> dict[str, str]:
    """Returns the place of each data set.

    Args:
        given: NAME=PATH, a key of `DATA_SETS` and a folder.

    Raises:
        ConfigError: a name is unknown or given twice, or there is no such folder.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if name not in DATA_SETS:
            raise unknown(OPTION, name, DATA_SETS)
        if not (equals and path):
            raise ConfigError(f"{OPTION} {text}: not NAME=PATH")
        if name in found:
            raise ConfigError(f"{OPTION} {name} is given twice")
        folder = expand(path, OPTION)
        if not folder.is_dir():
            raise ConfigError(f"{OPTION} {text}: there is no such folder")
        found[name] = str(folder)
    return found


def hints(cells: Sequence[Cell]) -> list[str]:
    """Returns a line for each data set that cells wait for: the option that has them trained."""
    waiting = [name for name in DATA_SETS if name in {cell.needs for cell in cells}]
    return [f"{OPTION} {_word(f'{name}=PATH')} trains the rows that need it." for name in waiting]


def data_cell(
    plan: Plan,
    dataset: str,
    setting: str,
    name: str,
    published: str,
    method: str,
    *,
    epochs: int,
    **given: Any,
) -> Cell:
    """Makes a cell that is run if the plan has the place of its data set.

    Args:
        plan: of the table.
        dataset: a key of `DATA_SETS`.
        setting: see `Cell`.
        name: see `Cell.method`.
        published: the first of `Cell.published`.
        method: see `data_config`.
        epochs: see `data_config`.
        **given: see `data_config`.
    """
    if dataset not in plan.places:
        return Cell(setting, name, None, (published,), dataset)
    return Cell(
        setting, name, data_config(plan, dataset, method, epochs=epochs, **given), (published,)
    )


def data_config(
    plan: Plan,
    dataset: str,
    method: str,
    *,
    epochs: int,
    model: str = "",
    arguments: Mapping[str, str] | None = None,
    second_epochs: int = 0,
    **overrides: Any,
) -> ConfigDict:
    """Builds the config of a cell about a data set whose place the plan has.

    The preset and fields of the plan that are about CIFAR have no part in it.

    Args:
        plan: of the table.
        dataset: a key of `plan.places`.
        method: of the config file.
        epochs: of the training in its source.
        model: the published network; "" = that of the config file.
        arguments: other arguments of the config file.
        second_epochs: see `Plan.config`.
        **overrides: config fields, with "__" for a dot.

    Raises:
        ConfigError: a file is missing, or a field of the plan is one that the table decides.
    """
    data, place = DATA_SETS[dataset], Path(plan.places[dataset])
    length = max(round(epochs * plan.epochs / EPOCHS), 2)
    args = {"method": method, "epochs": length, **(arguments or {})}
    other = "resnet8" if plan.quick else plan.model
    if other or model:
        args["model"] = other or model
    if data.weights:
        args["weights"] = ""
    module = _module(data.config)
    config = module.get_config(",".join(f"{key}={value}" for key, value in args.items()))
    fields = {name.replace("__", "."): value for name, value in overrides.items()}
    if second_epochs:
        fields["num_epochs"] = length + max(plan.scaled(second_epochs), 1)
    usual = set(plan.overrides) - OF_CIFAR
    if data.lists.get("data.val_list"):
        # It has validation images of its own.
        usual -= HELD_OUT
    if plan.quick:
        fields["data.image_size"] = QUICK_SIZE
    classes, _ = SIZES[config.data.name]
    config = plan.completed(config, fields, {n: plan.overrides[n] for n in usual}, classes)
    if data.weights and not other:
        # They fit the published network alone.
        config.model.pretrained = str(_beside(place, data.weights, dataset))
    config.data.path = str(place)
    for field, file in data.lists.items():
        config.update_from_flattened_dict({field: str(_beside(place, file, dataset))})
    if config.data.resize_shorter:
        # As 256 to 224.
        config.data.resize_shorter = round(config.data.image_size * 256 / 224)
    return config


def _beside(place: Path, name: str, dataset: str) -> Path:
    """A file in the folder of a data set, or beside it.

    Raises:
        ConfigError: there is none.
    """
    for file in (place / name, place.resolve().parent / name):
        if file.is_file():
            return file.resolve()
    config = DATA_SETS[dataset].config
    raise ConfigError(
        f"{OPTION} {dataset}={place}: there is no {name} in it or beside it{where(config)}"
    )


def _module(config: str) -> ModuleType:
    # Read by path, because the config files lie elsewhere in an installed package.
    return beside(str(packaged.folder() / "__init__.py"), config)


def _word(text: str) -> str:
    """A word for a shell."""
    return f'"{text}"' if re.search(r"\s", text) else text
