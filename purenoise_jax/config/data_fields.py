"""The config fields of the data: where images come from, which of them train, and augmentation."""

import math

from purenoise_jax.config.field import Field
from purenoise_jax.config.resolve import AUTO
from purenoise_jax.data.augment.compose import AUGMENTATIONS, MAX_COLOR_STRENGTH
from purenoise_jax.data.feed import FEEDS, ON_BAD
from purenoise_jax.data.longtail import MAX_SEED, PROFILES, RULES
from purenoise_jax.data.sources.lists import REPEATS
from purenoise_jax.data.sources.registry import SOURCES
from purenoise_jax.data.sources.resize import RESIZES
from purenoise_jax.data.training_set import NORMALIZE
from purenoise_jax.data.view import CROPS
from purenoise_jax.runtime.constraints import (
    Integer,
    Names,
    OneOf,
    PerChannel,
    PerClass,
    Real,
    Text,
)

MAX_SIDE = 16_384
MAX_OPS = 100
MAX_WORKERS = 1024

DATA_FIELDS: dict[str, Field] = {
    "data.source": Field("auto", "source of the images", OneOf(SOURCES)),
    "data.name": Field("cifar10", "name of the data set, for sources that hold several", Text()),
    "data.path": Field("", "file or folder of the source", Text(), fixed=False),
    "data.train_split": Field(
        "", "training split of tfds, or training folder; '' = train", Text(), absent=""
    ),
    "data.test_split": Field(
        "",
        "test split of tfds, or test folder; '' = test, or validation if tfds has no test",
        Text(),
        absent="",
    ),
    "data.train_list": Field(
        "",
        "of source=list: training images, as lines 'path label' or a .csv table",
        Text(),
        fixed=False,
        absent="",
    ),
    "data.val_list": Field(
        "", "of source=list: validation images; '' = none", Text(), fixed=False, absent=""
    ),
    "data.test_list": Field(
        "", "of source=list: test images; '' = none", Text(), fixed=False, absent=""
    ),
    "data.path_column": Field(
        "path", "column of .csv lists with the paths below data.path", Text(), absent="path"
    ),
    "data.label_column": Field(
        "label",
        "column of .csv lists with the label, an integer or a name; or several with commas, of "
        "which an image has one: 1 and not 0 or -1",
        Text(),
        absent="label",
    ),
    "data.path_suffix": Field(
        "", "appended to every path of the lists, for example .png", Text(), absent=""
    ),
    "data.path_parts": Field(
        0, "parts at the end of every path of the lists that count; 0 = all", Integer(0), absent=0
    ),
    "data.repeats": Field(
        "refuse",
        "an image that a list names twice, or the test list and the training list",
        OneOf(REPEATS),
        absent="refuse",
    ),
    "data.group_column": Field(
        "",
        "column of .csv lists with the group of an image, such as its patient, whose images are in "
        "one split only; '' = images are drawn one by one",
        Text(),
        absent="",
    ),
    "data.image_size": Field(
        0, "resize to this height and width; 0 = as stored", Integer(0, MAX_SIDE)
    ),
    "data.resize": Field(
        "squash",
        "with image_size, images that are no squares: both sides scaled, the largest square in the "
        "middle, or the longer side scaled and the rest black",
        OneOf(RESIZES),
        absent="squash",
    ),
    "data.resize_shorter": Field(
        0,
        "resize the shorter side to this, and cut image_size out of the centre, or anywhere with "
        "random_crop; 0 = the whole image is resized to a square",
        Integer(0, MAX_SIDE),
        absent=0,
    ),
    "data.classes": Field(
        (),
        "classes that are kept, of all splits, by their numbers from 0; they are numbered anew in "
        "this order; () = all",
        PerClass(Integer(0), distinct=True),
        absent=(),
    ),
    "data.class_counts": Field(
        (),
        "training images of each class, chosen by data.rule, instead of profile and ratio; () = by "
        "the profile",
        PerClass(Integer(1)),
        absent=(),
    ),
    "data.imbalance_ratio": Field(
        0.0,
        "size of the largest class over the smallest; 0 = 100 if a subset is cut",
        Real(1, or_zero=True),
    ),
    "data.profile": Field(
        AUTO,
        "profile of class sizes; natural = keep every image; auto = exp for balanced benchmarks "
        "such as CIFAR and wherever imbalance_ratio is given, natural for all other data",
        OneOf((AUTO, *PROFILES)),
    ),
    "data.rule": Field(
        "cao", "images kept of a class: shuffled (Cao et al.) or the first n", OneOf(RULES)
    ),
    "data.seed": Field(
        0,
        "seed of the cao rule, and of the draw of validation and test images",
        Integer(0, MAX_SEED),
    ),
    "data.indices": Field(
        "", "file with the indices of the subset, instead of the rule", Text(), fixed=False
    ),
    "data.limit": Field(
        0,
        "for quick trials: images kept of the largest training class, of the others in "
        "proportion, and of each test class; 0 = all",
        Integer(0),
    ),
    "data.val_fraction": Field(
        0.0,
        "share of each class held out of the training images for validation, drawn by data.seed",
        Real(0, 1, below=True),
        absent=0.0,
    ),
    "data.val_per_class": Field(
        0,
        "instead of a share: images of each class held out; classes without more keep all",
        Integer(0),
        absent=0,
    ),
    "data.folds": Field(
        0,
        "instead of a share: parts that the training images are divided into, one of which is for "
        "validation; 0 = none",
        Integer(0),
        absent=0,
    ),
    "data.fold": Field(0, "with folds: the part for validation, from 0", Integer(0), absent=0),
    "data.test_fraction": Field(
        0.0,
        "share of each class held out of the training images to test with, of data without a test "
        "set, before any validation images",
        Real(0, 1, below=True),
        absent=0.0,
    ),
    "data.feed": Field(
        "auto",
        "images lie on the devices, in a file on the host, or are decoded as they are needed; "
        "auto = on the devices if they fit, otherwise in a file; does not change results",
        OneOf(FEEDS),
        fixed=False,
        absent="auto",
    ),
    "data.workers": Field(
        0,
        "threads that read images with feed=mapped or decoded; 0 = one per core; does not change "
        "results",
        Integer(0, MAX_WORKERS),
        fixed=False,
        absent=0,
    ),
    "data.on_bad": Field(
        "stop",
        "an image file that cannot be read, at the start or later, or has changed: stop the run, "
        "or skip the file and list it in bad_images.txt",
        OneOf(ON_BAD),
        fixed=False,
        absent="stop",
    ),
    "data.augment": Field(
        ("flip", "crop", "cutout", "simclr"),
        "augmentations, applied in this order in pixel space",
        Names((*AUGMENTATIONS, *CROPS)),
    ),
    "data.crop_padding": Field(
        4, "pixels of zero padding around the image before a crop", Integer(0, MAX_SIDE)
    ),
    "data.cutout_size": Field(
        16, "side of the hole in pixels; odd sizes are rounded down to even", Integer(2, MAX_SIDE)
    ),
    "data.color_strength": Field(
        0.5,
        "strength of the colour jitter of simclr and simclr_scaled, s in Chen et al. 2020",
        Real(0, MAX_COLOR_STRENGTH),
        absent=0.5,
    ),
    "data.rotation_degrees": Field(
        15.0, "largest angle of rotation, to both sides", Real(0, 180), absent=15.0
    ),
    "data.randaugment_ops": Field(
        2, "operations of randaugment per image", Integer(1, MAX_OPS), absent=2
    ),
    "data.randaugment_magnitude": Field(
        9, "level of all operations of randaugment", Integer(0, 30), absent=9
    ),
    "data.augmix_severity": Field(
        3, "augmix draws from this many of its 10 levels, the mildest", Integer(1, 10), absent=3
    ),
    "data.normalize": Field(
        AUTO,
        "source of the mean and standard deviation that images are normalised with; auto = the "
        "customary constants for CIFAR, train_subset for all other data",
        OneOf((AUTO, *NORMALIZE)),
    ),
    "data.normalize_mean": Field(
        (),
        "mean for normalize=explicit, one number per channel",
        PerChannel(Real(-math.inf)),
    ),
    "data.normalize_std": Field(
        (),
        "standard deviation for normalize=explicit, one number per channel",
        PerChannel(Real(0, above=True)),
    ),
}
