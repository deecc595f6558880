"""Images from any source as (n, c, h, w) in [-1, 1]: public data sets, the user's files and folders, the hub."""

from shortrun.data.image_set import Dataset, ImageSet, PixelRange, require_labels
from shortrun.data.own_images import read_image_set, read_images, read_mask
from shortrun.data.sources import NAMES, load_dataset

__all__ = [
    "NAMES",
    "Dataset",
    "ImageSet",
    "PixelRange",
    "load_dataset",
    "read_image_set",
    "read_images",
    "read_mask",
    "require_labels",
]
