"""Features for images without labels: of a classifier that tells by which angle an image was turned.

Source: Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018,
arXiv 1803.07728.
"""

import torch

from shortrun.data import Dataset, ImageSet
from shortrun.evaluation.classifier import own_features
from shortrun.metrics import Features

ANGLES = 4
"""0, 90, 180 and 270 degrees: the classes."""
FEWEST, MOST = 16, 10_000
"""Images of a set that a classifier can learn from, and those that are turned, at most."""
TASK = "rotations"


def features_for(dataset: Dataset, seed: int = 0) -> Features | None:
    """Return what the images of a data set are compared by; None where there is nothing to learn it from.

    With labels of two classes or more it is a classifier of these, see `own_features`. Without, it is one of rotations,
    where images are square, whole, and 16 or more: see `rotation_features`.

    dataset: of images.
    seed: 0 or more, of the initial weights and the order of the images.

    Raises InputError where the folder that SHORTRUN_CACHE names cannot be written.
    """
    if dataset.labelled:
        return own_features(dataset, seed)
    _, h, w = dataset.train.shape
    if h != w or len(dataset.train) < FEWEST or dataset.train.masks is not None:
        return None
    return rotation_features(dataset, seed)


def rotation_features(dataset: Dataset, seed: int = 0) -> Features:
    """Return the features of a classifier that tells by which of four angles an image was turned.

    It has learned from the train images at all angles, and its `accuracy` is that on the test images. It is kept as
    the classifiers of labels are. Where all angles look alike, as of textures, its features say little: look at the
    accuracy, which is 0.25 by chance.

    dataset: of square images; labels are not looked at.
    seed: 0 or more.

    Source: Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018,
    arXiv 1803.07728.
    """
    train, test = turned(dataset.train), turned(dataset.test)
    features = own_features(Dataset(f"{TASK} of {dataset.name}", train, test), seed)
    features.task = TASK
    return features


def turned(images: ImageSet) -> ImageSet:
    """Return images at all angles, with the number of the angle as their label.

    images: square; of more than 10,000 the first ones.
    """
    pixels = images.pixels[:MOST]
    labels = torch.arange(ANGLES).repeat_interleave(len(pixels))
    return ImageSet(torch.cat([pixels.rot90(k, (2, 3)) for k in range(ANGLES)]), labels, images.levels)
