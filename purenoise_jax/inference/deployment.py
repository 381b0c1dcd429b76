"""Adapts a trained network to its use: class frequencies, costs of errors, a temperature."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purenoise_jax.methods.class_shares import takes_prior
from purenoise_jax.methods.recipe import Postprocess
from purenoise_jax.runtime.errors import ConfigError, nearest, shown
from purenoise_jax.runtime.files import read_bytes
from purenoise_jax.runtime.paths import expand

UNIFORM, TRAIN = "uniform", "train"
# What may stand for a file.
WORDS = {"prior": (UNIFORM, TRAIN), "costs": ()}
# A prior as users give it: a word, a file, shares by class name, or shares in label order.
PriorLike = str | Path | Mapping[str, float] | Sequence[float] | np.ndarray
CostsLike = str | Path | Sequence[Sequence[float]] | np.ndarray


class Deployment(NamedTuple):
    """The facts about the images to classify that are not those of training.

    Attributes:
        prior: f64[K], share of each class among the images to classify; None = not known, and the
            probabilities are those of the run's own evaluation.
        costs: f64[K, K], the cost of predicting the class of the column for an image of the class
            of the row; None = all errors cost the same.
        temperature: by which logits are divided, see `temperature.fit_temperature`.
    """

    prior: np.ndarray | None = None
    costs: np.ndarray | None = None
    temperature: float = 1.0

    def decide(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Chooses the class with the least expected cost, without costs the most probable one.

        Source: Elkan 2001, "The foundations of cost-sensitive learning", equation 1.

        Args:
            probabilities: f32[N, K].

        Returns:
            The classes int64[N], and their expected costs f64[N], None without costs. Of equal
            classes it is the first.
        """
        if self.costs is None:
            return probabilities.argmax(axis=1), None
        expected = probabilities.astype(np.float64) @ self.costs
        return expected.argmin(axis=1), expected.min(axis=1)


def with_temperature(postprocess: Postprocess, temperature: float) -> Postprocess:
    """Returns the logits of a method divided by a temperature, before a known prior is added.

    Args:
        postprocess: of the recipe that trained the network.
        temperature: above 0; 1 = `postprocess` itself.

    Raises:
        ConfigError: it is not.
    """
    if temperature == 1:
        return postprocess
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature={temperature:g} is not legal; legal: finite, above 0")

    def divided(logits: jax.Array, log_prior: jax.Array | None = None) -> jax.Array:
        own = postprocess(logits) / temperature
        if log_prior is None:
            return own
        zeros = jnp.zeros_like(logits[:1])
        return own + (postprocess(zeros, log_prior) - postprocess(zeros))

    return divided


def for_prior(
    postprocess: Postprocess, trained: np.ndarray | None, prior: np.ndarray | None
) -> Postprocess:
    """Returns the logits for images with other class frequencies, as a function of the network's.

    The probability of class k is multiplied by prior[k] / trained[k] and all are divided by their
    sum (Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to new a
    priori probabilities: a simple procedure"). This assumes that images of one class look the same
    in training and in use, that only the frequencies of the classes differ, and that the network's
    probabilities are those of images with the frequencies `trained`. The last is true for a
    cross-entropy over rows that are drawn and weighted by class, as far as the network fits them;
    methods with margins, mixed images or noise images meet it roughly.

    A method that says itself how the frequencies enter its logits, such as logit adjustment, is
    followed instead: its `postprocess` gets the logarithm of `prior`.

    Args:
        postprocess: of the recipe that trained the network.
        trained: f64[K], from `class_shares.trained_shares`.
        prior: f64[K], see `Deployment`; None = `postprocess` without it.

    Raises:
        ConfigError: `trained` is None, and the method does not say how frequencies enter.
    """
    if prior is None:
        return postprocess
    with np.errstate(divide="ignore"):
        log_prior = jnp.asarray(np.log(prior), jnp.float32)
    if takes_prior(postprocess, len(prior)):
        return lambda logits, _=None: postprocess(logits, log_prior)
    if trained is None:
        raise ConfigError(
            "a prior needs the class frequencies that the network was trained with, which this "
            "run's method learns and does not record; leave the prior out"
        )
    shift = log_prior - jnp.asarray(np.log(trained), jnp.float32)
    return lambda logits, _=None: postprocess(logits) + shift[None]


def read_prior(
    given: PriorLike | None, class_names: Sequence[str], class_counts: np.ndarray
) -> np.ndarray | None:
    """Returns the share of each class, f64[K].

    Args:
        given: "uniform"; "train", the shares of the training images; a CSV file of lines
            `class,number` with every class once, under a header or not; a number by class name; or
            K numbers in label order. Numbers are at least 0, and are divided by their sum. None =
            no prior.
        class_names: K names in label order.
        class_counts: int[K], training images per class.

    Raises:
        ConfigError: it is none of these, there is no such file, or its classes are not those of
            the run.
        OSError: the file cannot be read.
    """
    if given is None:
        return None
    if isinstance(given, str | Path):
        if str(given) == UNIFORM:
            return np.full(len(class_names), 1 / len(class_names))
        if str(given) == TRAIN:
            return np.asarray(class_counts / class_counts.sum(), np.float64)
        where = f"prior={given}"
        given = _counts_of(_table(given, "prior"), where)
    else:
        where = "prior"
    if isinstance(given, Mapping):
        _check_names(list(given), class_names, where)
        given = [given[name] for name in class_names]
    numbers = _numbers(given, (len(class_names),), where)
    if not numbers.sum() > 0:
        raise ConfigError(f"{where}: all shares are 0; legal: at least one above 0")
    return numbers / numbers.sum()


def read_costs(given: CostsLike | None, class_names: Sequence[str]) -> np.ndarray | None:
    """Returns the cost of every prediction for every true class, f64[K, K].

    Args:
        given: a CSV file whose header names the predicted classes after its first cell, and whose
            rows begin with the name of a true class, all in any order; or K rows of K numbers in
            label order. Numbers are at least 0. None = no costs.
        class_names: K names in label order.

    Raises:
        ConfigError: it is neither, there is no such file, or its classes are not those of the
            run.
        OSError: the file cannot be read.
    """
    if given is None:
        return None
    if isinstance(given, str | Path):
        where = f"costs={given}"
        header, *rows = _table(given, "costs") or [[]]
        if any(len(row) != len(header) for row in rows):
            raise ConfigError(f"{where}: its rows differ in length; legal: a cost for every class")
        _check_names(header[1:], class_names, where)
        _check_names([row[0] for row in rows], class_names, where)
        by_name = {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}
        ordered = [[by_name[true][name] for name in class_names] for true in class_names]
        return _numbers(ordered, (len(class_names),) * 2, where)
    return _numbers(given, (len(class_names),) * 2, "costs")


def _table(path: str | Path, field: str) -> list[list[str]]:
    """Reads the rows of a CSV file that are not empty, without blanks around cells."""
    file, words = expand(path, field), WORDS[field]
    if not file.exists() or file.is_dir():
        fault = "is a folder" if file.is_dir() else "there is no such file"
        legal = ", ".join([*words, "or a CSV file" if words else "a CSV file"])
        raise ConfigError(f"{field}={path}: {fault}; legal: {legal}{nearest(path, words)}")
    text = read_bytes(file).decode("utf-8-sig", "surrogateescape")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ConfigError(f"{field}={path}: no CSV table ({error})") from None
    return [[cell.strip() for cell in row] for row in rows if any(map(str.strip, row))]


def _counts_of(rows: list[list[str]], where: str) -> dict[str, Any]:
    odd = next((row for row in rows if len(row) != 2), None)
    if odd is not None:
        raise ConfigError(f"{where}: wanted lines class,number, got {shown(','.join(odd))}")
    if rows and not _is_number(rows[0][1]):
        rows = rows[1:]
    _refuse_twice([name for name, _ in rows], where)
    return {name: number for name, number in rows}


def _check_names(found: Sequence[str], class_names: Sequence[str], where: str) -> None:
    _refuse_twice(found, where)
    known = set(class_names)
    for name in found:
        if name not in known:
            hint = nearest(name, class_names)
            raise ConfigError(f"{where}: {shown(name)} is no class of the run{hint}")
    missing = [name for name in class_names if name not in set(found)]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ConfigError(f"{where}: lacks the classes {', '.join(missing[:5])}{more}")


def _refuse_twice(found: Sequence[str], where: str) -> None:
    twice = next((name for name, times in Counter(found).items() if times > 1), None)
    if twice is not None:
        raise ConfigError(f"{where}: has {shown(twice)} twice; legal: every class once")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(given: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    try:
        numbers = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: holds something else than numbers ({error})") from None
    if numbers.shape != shape:
        raise ConfigError(f"{where}: has the shape {numbers.shape}; legal: {shape}")
    if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
        raise ConfigError(f"{where}: holds a number that is negative or not finite; legal: 0 up")
    return numbers
