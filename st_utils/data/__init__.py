"""Data sets and their loaders.

    data = create("dataset", "mnist", data_dir="data")
    train, test = build_loaders(data, img_size=28, batch_size=128, augment=Augment(crop_padding=2), seed=0)
    train.set_epoch(3)
    for images, labels in train: ...        # [B, C, H, W] float32, [B] int64

Every module in images/, events/ and paired/ is imported here: adding a data set is adding one file there.
"""

from registry import import_all
from st_utils.batch_share import Share
from st_utils.data import events, images, paired
from st_utils.data.base import ArrayImages, DataSet, FrameData, first_per_class, labels_of
from st_utils.data.batches import BatchSource
from st_utils.data.identity import Files, data_identity
from st_utils.data.images.augment import Augment
from st_utils.data.loader import EpochLoader, build_loaders
from st_utils.data.pairs import DomainPair, SourceImages, check_pair

for _room in (images, events, paired):
    import_all(_room.__name__, _room.__path__)

__all__ = [
    "ArrayImages", "Augment", "BatchSource", "DataSet", "DomainPair", "EpochLoader", "Files", "FrameData", "Share",
    "SourceImages", "build_loaders", "check_pair", "data_identity", "first_per_class", "labels_of",
]  # fmt: skip
