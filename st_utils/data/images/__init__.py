"""Data sets of still images, and the augmentation of images.

    create("dataset", "cifar10", data_dir="data")

Data sets are in digits.py, idx.py (MNIST, Fashion-MNIST), cifar.py, folder.py (ImageNet, any folder) and sequences.py;
Caltech-101, Omniglot and the pictures of CEP-DVS are in ../paired/, with their events.
"""
