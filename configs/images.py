"""Your own images: a folder, an .npz file, or lists of images.

    python -m purenoise_jax.main --config images:path=photos --workdir runs/photos

Arguments after a colon, separated by commas (a path may have commas as well):
    path=photos (a folder of class folders; or with train/<class>/ and, if there, test/<class>/ and
        val/<class>/)
    path=images.npz (train_images, train_labels and, if there, test_images, test_labels)
    path=train.csv,test=test.csv,val=val.csv,root=photos (lists, .csv or .txt, of images below root;
        without root they lie in the folder of the list; test and val may be left out)
    path_column=file,label_column=class (columns of these lists, if they are not path and label)
    folds=5,fold=0 (validation images are one of so many parts of the training images)
    method=open (any of docs/methods.md, or several joined by +)   epochs=60
    model=resnet18   size=128 (side that images are resized to)   resize=squash|crop|pad
    augment=simclr|cutout|flip_crop|autoaugment

Every image is kept. Without test and validation images a fifth of each class is for validation.
Epochs, network, size and augmentation, where they are not given, and the batch
and the learning rate fit the number and size of the images: docs/data.md has the rules, and the
header of the run shows the result. `--config.FIELD=VALUE` changes any of them.
"""

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.own_images import find_images, fit
from purenoise_jax.data.sources.lists import NO_LISTS
from purenoise_jax.data.sources.resize import RESIZES, SQUASH
from purenoise_jax.models import MODELS
from purenoise_jax.runtime.errors import ConfigError

FITS = "fits"
VAL_FRACTION = 0.2


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    args = common.parse_arg(
        arg,
        path="",
        root="",
        test="",
        val="",
        path_column=NO_LISTS.path_column,
        label_column=NO_LISTS.label_column,
        folds=0,
        fold=0,
        method="open",
        epochs=0,
        model=FITS,
        size=0,
        resize=SQUASH,
        augment=FITS,
    )
    common.choose("model", args.model, (FITS, *MODELS))
    common.choose("augment", args.augment, (FITS, *common.AUGMENTS))
    common.choose("resize", args.resize, RESIZES)
    for name in ("epochs", "size", "folds", "fold"):
        if args[name] < 0:
            raise ConfigError(f"config argument {name}={args[name]} must not be below 0")
    own = find_images(
        args.path,
        root=args.root,
        test=args.test,
        val=args.val,
        path_column=args.path_column,
        label_column=args.label_column,
    )
    settings = fit(own, args.size)
    config = default_config()
    common.set_methods(config, args.method, args.epochs or settings.epochs)
    config.batch_size = settings.batch_size
    config.optimizer.learning_rate = settings.learning_rate
    # The papers' rates down to 1e-5 would leave a short run too few effective steps after the
    # first drop.
    config.optimizer.gamma = 0.1
    config.data.update(own.fields)
    config.data.profile = "natural"
    config.data.folds, config.data.fold = args.folds, args.fold
    if not (own.measured or args.folds):
        config.data.val_fraction = VAL_FRACTION
    config.data.image_size = settings.image_size
    config.data.resize = args.resize
    fits = settings.augment if args.augment == FITS else common.AUGMENTS[args.augment]
    config.data.augment = fits
    config.data.crop_padding = settings.crop_padding
    config.data.cutout_size = settings.cutout_size
    config.model.name = settings.model if args.model == FITS else args.model
    return config
