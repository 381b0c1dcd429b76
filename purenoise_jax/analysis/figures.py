"""Every figure by name."""

from typing import NamedTuple

from purenoise_jax.analysis import (
    activation_maps,
    activations,
    boundaries,
    class_accuracy,
    class_areas,
    class_errors,
    classification_ratio,
    confusion,
    curves,
    errors,
    feature_deviation,
    gradients,
    groups,
    images,
    noise_features,
    predictions,
    rebalanced,
    reliability,
    scores,
    subset_images,
    subsets,
    train_test_tsne,
    tsne,
)
from purenoise_jax.analysis.figure_style import Draw


class Entry(NamedTuple):
    """A figure.

    Attributes:
        draw: function that draws it.
        help: its content in one line, for `--help`.
        options: the fields of `Options` that it uses; every figure accepts `seed`.
    """

    draw: Draw
    help: str
    options: tuple[str, ...] = ()


FIGURES: dict[str, Entry] = {
    "curves": Entry(curves.draw, "loss, test accuracy and learning rate by epoch"),
    "confusion": Entry(confusion.draw, "confusion matrix, a row for each true class"),
    "groups": Entry(groups.draw, "accuracy of five groups of classes, rarest to most frequent"),
    "class_accuracy": Entry(class_accuracy.draw, "accuracy of each class against its size"),
    "classification_ratio": Entry(
        classification_ratio.draw,
        "training images classified as a class over its own, by epoch",
    ),
    "class_errors": Entry(
        class_errors.draw, "error of majority and minority classes, with seeds' standard errors"
    ),
    "scores": Entry(
        scores.draw, "precision, recall, F1 and average precision of each class", ("epoch",)
    ),
    "reliability": Entry(
        reliability.draw, "accuracy by probability of the predicted class", ("epoch",)
    ),
    "errors": Entry(
        errors.draw, "the most probable wrong predictions as images", ("epoch", "images")
    ),
    "images": Entry(
        images.draw, "a training batch, augmented, with its noise images", ("epoch", "images")
    ),
    "rebalanced": Entry(
        rebalanced.draw,
        "images of an epoch by class: original, oversampled, with noise",
        ("images",),
    ),
    "subsets": Entry(
        subsets.draw, "overlap of the long-tailed subsets in use (one run)", ("indices",)
    ),
    "subset_images": Entry(
        subset_images.draw,
        "images that only one of the subsets has (one run)",
        ("images", "indices"),
    ),
    "boundaries": Entry(
        boundaries.draw,
        "predicted classes on planes through three test images",
        ("epoch", "images"),
    ),
    "class_areas": Entry(
        class_areas.draw, "area of each class on many such planes", ("epoch", "images")
    ),
    "tsne": Entry(
        tsne.draw,
        "t-SNE of features: test images by class, OOD images, noise",
        ("epoch", "images", "ood_name", "ood_path"),
    ),
    "train_test_tsne": Entry(
        train_test_tsne.draw,
        "t-SNE of training and test images of two classes, most frequent and rarest",
        ("epoch", "images"),
    ),
    "feature_deviation": Entry(
        feature_deviation.draw,
        "distance of the mean features of training and test images of each class",
        ("epoch", "images", "rounds"),
    ),
    "predictions": Entry(
        predictions.draw,
        "predicted classes of noise and of OOD images",
        ("epoch", "images", "ood_name", "ood_path"),
    ),
    "noise_features": Entry(
        noise_features.draw,
        "cosine between noise and natural features, and the spread of both",
        ("epoch", "images"),
    ),
    "activations": Entry(
        activations.draw,
        "activations of natural and noise images around BN and DAR-BN",
        ("epoch",),
    ),
    "activation_maps": Entry(
        activation_maps.draw,
        "channels of a natural and of a noise image in two layers",
        ("epoch",),
    ),
    "gradients": Entry(
        gradients.draw,
        "size and direction variance of class gradients, with and without noise",
        ("epoch",),
    ),
}
