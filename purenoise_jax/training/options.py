"""Options of a run that no part of an `Experiment` holds, as plain values."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Values of a config without open fields; `experiment.run_options` reads them.

    Attributes:
        config_hash: of the fields that must stay the same while the run continues.
        seed: random seed of everything except the choice of the subset.
        num_epochs: epochs in all.
        batch_size: images a training step takes.
        steps_per_call: training steps that one call runs; 0 = chosen by the device.
        eval_batch_size: images an evaluation step takes.
        eval_every_epochs: epochs between evaluations; 0 = only where it is needed.
        checkpoint_epochs: completed epochs whose checkpoints are never deleted.
        checkpoint_every_epochs: epochs between checkpoints; 0 = none.
        checkpoint_every_steps: steps between checkpoints; 0 = none.
        checkpoint_best: metric of the validation images by which the best checkpoint is kept.
        eval_test: "always" evaluates the test set whenever the others, "end" only at the end,
            "never" leaves it out; "optional" = "end", and there need not be any images.
        eval_train: every evaluation also classifies the training images.
        eval_patience: evaluations without a better one after which the run ends; 0 = none.
        checkpoint_keep: how many of the checkpoints made every so many epochs or steps are kept.
        init_epoch: completed epochs of the checkpoint that `init_from` gives.
        init_aux_bn: how auxiliary layers that this checkpoint lacks begin; see `init_transforms`.
        fresh: start from scratch although there are checkpoints.
        model: name of the network.
        norm: name of its normalisation layer.
        noise_grad: what flows back from noise rows, "auto" included.
        dtype: of activations.
        matmul_precision: of products and convolutions, one of `numerics.MATMUL_PRECISIONS`.
        data_indices: file that lists the training images; "" = none.
        data_profile: imbalance profile of the subset.
        data_class_counts: training images of each class, in place of both; () = by the profile.
        imbalance_ratio: images of the largest class over those of the smallest.
        data_limit: images that the largest class keeps; 0 = all.
        val_rule: rule by which validation images were held out, in words; "" = none were.
        image_size: side that images are resized to; 0 = as stored.
        resize: the way that images which are no squares are resized.
        augment: names of augmentations.
    """

    config_hash: str
    seed: int
    num_epochs: int
    batch_size: int
    steps_per_call: int
    eval_batch_size: int
    eval_every_epochs: int
    checkpoint_epochs: tuple[int, ...]
    checkpoint_every_epochs: int
    checkpoint_every_steps: int
    checkpoint_best: str
    eval_test: str
    eval_train: bool
    eval_patience: int
    checkpoint_keep: int
    init_epoch: int
    init_aux_bn: str
    fresh: bool
    model: str
    norm: str
    noise_grad: str
    dtype: str
    matmul_precision: str
    data_indices: str
    data_profile: str
    data_class_counts: tuple[int, ...]
    imbalance_ratio: float
    data_limit: int
    val_rule: str
    image_size: int
    resize: str
    augment: tuple[str, ...]
