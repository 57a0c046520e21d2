"""Data sets of still images and of event recordings that show the same objects, for transfer between the two domains.

    images = create("dataset", "caltech101", data_dir="data")
    events = create("dataset", "ncaltech101", data_dir="data")
    check_pair(images, events)    # same classes in the same order; no image is of an object that the events test on

He et al. 2024, arXiv:2303.13077. caltech.py has Caltech-101 (N-Caltech101 is in ../events/sets.py), omniglot.py and
nomniglot.py the characters, cepdvs.py both sides of CEP-DVS. The other pairs are digits and digits_dvs, mnist and
nmnist, cifar10 and dvsc10. A sample of the target is paired with an image of its class (../pairs.py). An image of an
object that the target tests on must not be trained on: the target's accuracy would be that of a network that knows it.
"""
