"""Classifiers of tables: gradient-boosted trees of XGBoost, and a support vector machine.

READING: Shwartz-Ziv et al. 2023 publish neither the settings of these classifiers nor how their
features are coded. XGBoost has its defaults: depth 6, 100 rounds, a rate of 0.3. The SVM has a
radial kernel, C = 1 and scikit-learn's width of the kernel. Categories are one-hot, and the SVM's
other features are standardised by its training rows, with the mean in place of what is missing.
"""

import importlib
from collections.abc import Callable
from importlib import metadata

import numpy as np

from purenoise_jax.runtime.errors import ConfigError

from .csv_rows import TwoClasses

MODELS = {"xgboost": "XGBoost", "svm": "SVM"}
INSTALL = "pip install xgboost"
Predict = Callable[[np.ndarray], np.ndarray]


def fit(model: str, rows: TwoClasses, chosen: np.ndarray, seed: int) -> Predict:
    """Fits a classifier.

    Args:
        model: one of `MODELS`.
        rows: the table.
        chosen: int[M], rows to train on.
        seed: of the classifier.

    Returns:
        features f64[P, F] -> classes int[P].

    Raises:
        ConfigError: XGBoost is not installed.
    """
    features, labels = rows.features[chosen], rows.labels[chosen]
    if model == "xgboost":
        try:
            xgboost = importlib.import_module("xgboost")
        except ImportError:
            raise ConfigError(f"--model xgboost needs the package xgboost: {INSTALL}") from None
        # Threads would wait for each other longer than they compute: the sets are small.
        trees = xgboost.XGBClassifier(
            max_depth=6, n_estimators=100, learning_rate=0.3, random_state=seed, n_jobs=1
        )
        predict: Predict = trees.fit(features, labels).predict
        return predict
    # Imported here, because it takes about a second.
    from sklearn.svm import SVC

    standardize = standardizer(features, rows.numeric)
    machine = SVC(C=1.0, kernel="rbf", gamma="scale").fit(standardize(features), labels)
    return lambda other: machine.predict(standardize(other))


def standardizer(features: np.ndarray, numeric: np.ndarray) -> Predict:
    """Returns a function that standardises numbers by the moments of these rows.

    Args:
        features: f64[M, F]; NaN is missing.
        numeric: bool[F], the features to standardise.

    Returns:
        f64[P, F] -> f64[P, F], in which a number that is missing is 0, the mean.
    """
    there = np.isfinite(features)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, features, 0).sum(axis=0) / count
    std = np.sqrt(np.where(there, (features - mean) ** 2, 0).sum(axis=0) / count)
    mean, std = np.where(numeric, mean, 0), np.where(numeric & (std > 0), std, 1)

    def standardize(other: np.ndarray) -> np.ndarray:
        return np.nan_to_num((other - mean) / std, nan=0.0)

    return standardize


def package_version(model: str) -> dict[str, str]:
    """The version of the package of a classifier, by the package's name."""
    name = {"xgboost": "xgboost", "svm": "scikit-learn"}[model]
    return {name: metadata.version(name)}
