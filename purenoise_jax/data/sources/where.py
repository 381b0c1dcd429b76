"""The places where the files of published data sets are to be had, for messages.

None of them is downloaded: most ask for a registration, and all are large.
"""

# By `data.name`, as the config files have it.
WHERE = {
    "imagenet_lt": "images of ILSVRC 2012 from https://image-net.org, lists ImageNet_LT_*.txt from "
    "https://github.com/facebookresearch/classifier-balancing",
    "places_lt": "images of Places365-Standard, 256 x 256, from http://places2.csail.mit.edu, "
    "lists Places_LT_*.txt from https://github.com/facebookresearch/classifier-balancing",
    "inaturalist18": "images train_val2018 from https://github.com/visipedia/inat_comp, lists "
    "iNaturalist18_*.txt from https://github.com/facebookresearch/classifier-balancing",
    "celeba5": "images img_align_celeba from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, "
    "lists etc/celebA_*.txt from https://github.com/alinlab/M2m",
    "tiny_imagenet": "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "tiered_imagenet": "the files *_images_png.pkl and *_labels.pkl of "
    "https://github.com/renmengye/few-shot-ssl-public, or the same classes as folders train/, val/ "
    "and test/ of images",
    "cinic10": "https://datashare.ed.ac.uk/handle/10283/3192",
    "eurosat": "EuroSAT_RGB.zip from https://zenodo.org/records/7711810",
    "svhn": "train_32x32.mat and test_32x32.mat from http://ufldl.stanford.edu/housenumbers",
    "fashion_mnist": "https://github.com/zalandoresearch/fashion-mnist, or Debian's package "
    "dataset-fashion-mnist",
    "aptos": "train.csv and train_images from "
    "https://www.kaggle.com/competitions/aptos2019-blindness-detection",
    "isic2020": "train.csv and jpeg/train from "
    "https://www.kaggle.com/competitions/siim-isic-melanoma-classification",
}


def where(name: str) -> str:
    """Returns the end of a message that files are missing: where they are to be had, or "".

    Args:
        name: of the data set.
    """
    return f"; {name}: {WHERE[name]}" if name in WHERE else ""
