"""Features of images to compare sets of them by: the last hidden layer of a small classifier of the same data set."""

import errno
import hashlib
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from safetensors import SafetensorError, safe_open
from torch import Tensor

from shortrun.data import Dataset, ImageSet, require_labels
from shortrun.errors import InputError, in_one_line
from shortrun.files import to_text
from shortrun.learners.weights import write_weights
from shortrun.metrics import Features
from shortrun.progress import shown
from shortrun.streams import initial_weights

CACHE = "SHORTRUN_CACHE"
RECIPE = 1
"""Part of the key of the cache: count it up with every change of the network or of its training."""

BATCH_SIZE, EPOCHS, MOST_STEPS, LEARNING_RATE = 128, 40, 1200, 2e-3


def own_features(dataset: Dataset, seed: int = 0) -> Features:
    """Return the features of a data set: a classifier trained on its labelled train images, or the one trained before.

    It depends on the images, the labels and the seed alone (and, in the last digits, on the machine). It is kept as
    safetensors in the folder that SHORTRUN_CACHE names, or else in the system's cache; a damaged file is trained again.
    Where the system's cache cannot be written, a line says that it is not kept. Figures made with different features
    cannot be compared: quote data set, seed and accuracy.

    dataset: with labels of two classes or more.
    seed: 0 or more, of the initial weights and the order of the images.

    Raises InputError where the data set has no labels, fewer than two classes, or where the folder that SHORTRUN_CACHE
    names cannot be written.
    """
    labels = require_labels(dataset.train, dataset.name)
    test_labels = require_labels(dataset.test, dataset.name)
    classes = labels.unique()
    if len(classes) < 2:
        raise InputError(
            "dataset",
            problem=f"all train images of {dataset.name} have one label",
            instead="features need two or more",
        )
    key = _key(dataset, seed)
    path = _cache_folder() / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', dataset.name)}-{key['content'][:16]}-{seed}.safetensors"
    features = _new(dataset.train.shape, len(classes), seed)
    if not _read(path, features, key):
        kept = _can_be_kept(path)  # before the training, so that a folder that cannot be made costs no minute
        features = _new(dataset.train.shape, len(classes), seed)  # a damaged file may have filled a part of it
        _train(features, dataset.train, torch.searchsorted(classes, labels), seed)
        features.accuracy = _accuracy(features, dataset.test, classes, test_labels)
        if kept:
            _write(path, features, key)
    features.seed = seed
    return features.eval().requires_grad_(False)


def _cache_folder() -> Path:
    """Return the folder of the classifiers, beside the downloads."""
    import pooch

    return Path(os.environ.get(CACHE) or pooch.os_cache("shortrun")).expanduser() / "features"


def _key(dataset: Dataset, seed: int) -> dict[str, str]:
    """Return what a classifier was trained on, as safetensors takes it: words."""
    content = hashlib.sha256()
    # all of it: a fraction of a second for 60,000 images, and two subsets never share a file
    for part in (dataset.train, dataset.test):
        content.update(to_text([str(part.pixels.dtype), list(part.pixels.shape), part.levels]).encode())
        content.update(part.pixels.contiguous().numpy().data)
        content.update(require_labels(part, dataset.name).contiguous().numpy().data)
    return {
        "data": dataset.name,
        "image_shape": to_text(dataset.train.shape),
        "train_images": str(len(dataset.train)),
        "seed": str(seed),
        "recipe": str(RECIPE),
        "content": content.hexdigest(),
    }


def _new(image_shape: tuple[int, int, int], classes: int, seed: int) -> Features:
    with initial_weights(seed):
        return Features(image_shape, classes)


def _read(path: Path, features: Features, key: dict[str, str]) -> bool:
    """Load the weights and the accuracy of a file of this key; return False where it is absent, damaged or another."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            accuracy = float(about.pop("accuracy"))
            if about != key:
                return False
            features.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError):
        return False
    features.accuracy = accuracy
    return True


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what a folder that cannot be written raises into an InputError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(
            CACHE,
            problem=f"cannot write {path} ({in_one_line(error)})",
            instead=f"name another folder in {CACHE}",
        ) from None


def _can_be_kept(path: Path) -> bool:
    """Make the folder of a file; where it is the system's cache and cannot be made, say so and return False."""
    try:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(path.parent, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))
    except InputError as error:
        if os.environ.get(CACHE):
            raise
        print(f"the features are trained anew each time: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _write(path: Path, features: Features, key: dict[str, str]) -> None:
    about = {**key, "accuracy": repr(features.accuracy)}
    with _writing(path):
        try:
            write_weights(features.state_dict(), path, about)
        except FileNotFoundError:
            # two processes that train the same features share the temporary name: the slower one finds it gone
            if not path.exists():
                raise


def _train(features: Features, images: ImageSet, labels: Int64[Tensor, "n"], seed: int) -> None:
    """Lower the cross-entropy by AdamW with a one-cycle learning rate, in an order drawn from the seed."""
    rng = torch.Generator().manual_seed(seed)
    steps = min(EPOCHS * math.ceil(len(images) / BATCH_SIZE), MOST_STEPS)
    optimizer = torch.optim.AdamW(features.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    order = torch.empty(0, dtype=torch.int64)
    features.train()
    for _ in shown(range(steps), "training features", "step"):
        if not len(order):
            order = torch.randperm(len(images), generator=rng)
        rows, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        loss = F.cross_entropy(features.logits(images.images(rows)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _accuracy(
    features: Features, images: ImageSet, classes: Int64[Tensor, "classes"], labels: Int64[Tensor, "n"]
) -> float:
    """Return the share of images that get their own label; one that was never trained on counts as wrong."""
    right = 0
    for rows in torch.arange(len(images)).split(500):
        right += int((classes[features.logits(images.images(rows)).argmax(1)] == labels[rows]).sum())
    return right / len(images)
