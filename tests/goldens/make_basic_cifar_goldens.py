"""Write basic_cifar.npz: a narrow network of basic blocks with the first layer for CIFAR.

These are the parts of resnet18 and resnet34 on small images.  The file is apart from networks.npz
so that the values there keep their last bits, which differ from version to version of PyTorch.  It
needs what ``make_network_goldens.py`` needs, whose modules it uses:

    python tests/goldens/make_basic_cifar_goldens.py

The stored file was made with PyTorch 2.14.1 (CPU) and NumPy 2.4.
"""

from make_network_goldens import CLASSES, Narrow, ResNet, narrow_goldens, save

# With the size of its images.
NARROW: Narrow = {
    "basic_cifar": (15, lambda n: ResNet(n, CLASSES, (2, 1, 1, 1), width=4, cifar=True)),
}

if __name__ == "__main__":
    save(narrow_goldens(NARROW), "basic_cifar.npz")
