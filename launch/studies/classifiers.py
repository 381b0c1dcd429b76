"""Classifiers of tables: gradient-boosted trees of XGBoost, and a support vector machine.

READING: Shwartz-Ziv et al. 2023 publish neither the settings of these classifiers nor how their
features are coded. XGBoost has its defaults: depth 6, 100 rounds, a rate of 0.3. The SVM has a
radial kernel, C = 1 and scikit-learn's width of the kernel. Categories are one-hot, and the SVM's
other features are standardised by its training rows, with the mean in place of what is missing.
"""

import importlib
from collections.abc import Callable
from functools import partial
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
        return trees.fit(features, labels).predict
    # Imported here, because it takes about a second.
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import SVC

    machine = make_pipeline(
        make_column_transformer((StandardScaler(), rows.numeric), remainder="passthrough"),
        # What is missing is not scaled; 0 is the mean.
        FunctionTransformer(partial(np.nan_to_num, nan=0.0)),
        SVC(C=1.0, kernel="rbf", gamma="scale"),
    )
    return machine.fit(features, labels).predict


def package_version(model: str) -> dict[str, str]:
    """The version of the package of a classifier, by the package's name."""
    name = {"xgboost": "xgboost", "svm": "scikit-learn"}[model]
    return {name: metadata.version(name)}
