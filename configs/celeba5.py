r"""CelebA-5, hair colours of 6,651 faces, WRN-28-10, OPeN with DAR-BN.

    python -m purenoise_jax.main --config configs/celeba5.py --workdir runs/celeba \
        --config.data.path=img_align_celeba --config.data.train_list=celebA_train_orig.txt \
        --config.data.val_list=celebA_val_orig.txt --config.data.test_list=celebA_test_orig.txt

Arguments after a colon, separated by commas:
    method=open (any of docs/methods.md, or several joined by +)   epochs=90   model=wrn28_10
    augment=simclr|cutout|flip_crop|autoaugment

Files: images img_align_celeba from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, lists
etc/celebA_*.txt from https://github.com/alinlab/M2m. The lists have 424, 2,423, 1,499, 2,078 and
227 training images of the five classes. They name images with two hair colours twice, once in each
class, and the folders of their authors; both is taken as it is, because the published numbers were
measured with it. Tables of attributes are read too (docs/data.md), without repeated images, but
with another `data.name`, because they have other counts.

Recipe: Zada et al. 2022, appendix D, for which they report 79.7 +- 0.2 % with OPeN, 78.6 +- 0.1 %
with ERM, and 80.9 +- 0.4 % with OPeN and AutoAugment.
READING: the batch (128) and the weight decay (2e-4), both as on CIFAR, the learning rate (0.1), the
warm-up (5 epochs) and the start of OPeN (epoch 60, with the last drop) are not stated; the start is
that of the reproduction's code.
"""

from ml_collections import ConfigDict

from purenoise_jax.config import parts as common

TIMES = common.Times(90, warmup=5, drops=(30, 60), deferred=60)


def get_config(arg: str | None = None) -> ConfigDict:
    """Builds the config; the top of the file lists the arguments."""
    config, args = common.start_config(
        arg,
        source="list",
        name="celeba5",
        method="open",
        model="wrn28_10",
        times=TIMES,
        augment="simclr",
    )
    common.choose("augment", args.augment, common.AUGMENTS)
    common.set_sgd(config, batch=128, rate=0.1, decay=2e-4)
    config.data.path_parts, config.data.repeats = 1, "keep"
    config.data.image_size = 64
    config.data.augment = common.AUGMENTS[args.augment]
    return config
