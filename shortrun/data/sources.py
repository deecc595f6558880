"""From the name of a source to its train and test images."""

from pathlib import Path

import torch

from shortrun.data.arguments import DATA_DIR, SOURCE
from shortrun.data.arrays import is_array_file, read_arrays
from shortrun.data.downloads import DOWNLOADS, fetch
from shortrun.data.folders import (
    CELEBA_CROP,
    CELEBA_HINT,
    CELEBA_SIZE,
    list_celeba,
    list_folder,
    read_files,
)
from shortrun.data.framing import Framing, reframed
from shortrun.data.hub import read_hub
from shortrun.data.image_set import Dataset, ImageSet
from shortrun.data.layouts import image_sets
from shortrun.data.selection import Selection
from shortrun.errors import InputError, did_you_mean

NAMES = ("digits", *DOWNLOADS, "celeba")
ALSO = "a path (.npz, .npy, .mat, idx, a folder of images) or hub:OWNER/NAME also goes"


def load_dataset(
    source: str,
    *,
    data_dir: Path | None = None,
    image_size: int | None = None,
    crop: int | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    binarize: bool = False,
) -> Dataset:
    """Return the train and test images of a source.

    `source` is `digits` (scikit-learn's, 1x8x8, 17 levels, nothing to download), `mnist`, `fashion_mnist`, `svhn`
    (downloaded once, or read from `data_dir`: the official files or NAME.npz), `celeba` (from `data_dir`), a path to
    an .npz, .npy, SVHN-style .mat or idx(.gz) file or to a folder of images, or `hub:OWNER/NAME[:CONFIG]`.

    With `crop` the centre crop x crop pixels are kept, with `image_size` the centre square is resized to it
    (antialiased bicubic). `celeba` has 140 and 64 as defaults: the centre 140 of the 178x218 aligned images, resized
    to 64x64, is what Wasserstein auto-encoders (Tolstikhin et al., arXiv 1711.01558) and regularized auto-encoders
    (Ghosh et al., arXiv 1903.12436) made usual, with which short-run learners compare their CelebA figures.

    A source without a split of its own loses `test_fraction` of its images, chosen by `seed`, to the test set; the
    limits keep the first so many of each. `binarize` leaves two levels. Raises InputError for anything that cannot
    be used.
    """
    if not source.strip():
        raise InputError(f"{SOURCE} is empty", problem=f"choose one of {', '.join(NAMES)} ({ALSO})")
    selection = Selection(train_limit, test_limit, test_fraction, seed)
    framing = Framing(crop, None if image_size is None else (image_size, image_size))
    path = Path(source).expanduser()
    name = source
    if source == "digits":
        train, test = _parted(_read_digits(), selection, framing, f"{SOURCE} digits")
    elif source in DOWNLOADS:
        folder = fetch(source) if data_dir is None else Path(data_dir).expanduser()
        train, test = _parted(_read_published(source, folder), selection, framing, f"{SOURCE} {source}")
    elif source == "celeba":
        if data_dir is None:
            raise InputError(f"{SOURCE} celeba", problem=f"give your own copy as {DATA_DIR}", instead=CELEBA_HINT)
        framing = Framing(crop or CELEBA_CROP, framing.size or (CELEBA_SIZE, CELEBA_SIZE))
        train, test = read_files(*list_celeba(Path(data_dir).expanduser(), selection), framing, DATA_DIR)
    elif source.startswith("hub:"):
        name = source.removeprefix("hub:")
        train, test = read_hub(source, selection, framing)
    elif path.is_dir():
        name = path.resolve().name
        train, test = read_files(*list_folder(path, selection), framing, SOURCE)
    elif path.is_file():
        name = path.name.split(".")[0]
        train, test = _parted(_read_array_file(path), selection, framing, f"{SOURCE} {path}")
    elif path.suffix or path.parent != Path():
        raise InputError(
            f"{SOURCE} {source}", problem="no such file or folder", instead=f"the names are {', '.join(NAMES)}"
        )
    else:
        raise InputError(f"{SOURCE} {source}", problem=f"{did_you_mean(source, NAMES)} ({ALSO})")
    if binarize:
        train, test = train.binarized(), test.binarized()
    return Dataset(name, train, test)


def _parted(
    sets: tuple[ImageSet, ...], selection: Selection, framing: Framing, subject: str
) -> tuple[ImageSet, ImageSet]:
    if len(sets) == 1:
        train_rows, test_rows = selection.split(len(sets[0]), subject)
        train, test = sets[0].select(train_rows), sets[0].select(test_rows)
    else:
        keep_train, keep_test = selection.counts(len(sets[0]), len(sets[1]))
        train, test = sets[0].take(keep_train), sets[1].take(keep_test)
    what = "every image of this source"
    return reframed(train, framing, what), reframed(test, framing, what)


def _read_digits() -> tuple[ImageSet]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images).to(torch.uint8).reshape(-1, 1, 8, 8)
    return (ImageSet(pixels, torch.from_numpy(labels).long(), levels=17),)


def _read_array_file(path: Path) -> tuple[ImageSet, ...]:
    if not is_array_file(path):
        raise InputError(
            f"{SOURCE} {path}",
            problem="not a file of many images",
            instead="give .npz, .npy, .mat, idx(.gz) or a folder",
        )
    return _read_sets(path, SOURCE)


def _read_sets(path: Path, argument: str) -> tuple[ImageSet, ...]:
    arrays = read_arrays(path, argument)
    subject = f"{argument} {path}"
    if "x" in arrays:
        return image_sets([arrays["x"]], [arrays.get("y")], subject)
    if "train_x" not in arrays:
        raise InputError(
            subject,
            problem="it has test_x and no train_x",
            instead="add train_x, or name the array x to have it split",
        )
    return image_sets([arrays["train_x"], arrays["test_x"]], [arrays.get("train_y"), arrays.get("test_y")], subject)


def _read_published(name: str, folder: Path) -> tuple[ImageSet, ...]:
    """Read the official files from FOLDER/NAME or FOLDER, or FOLDER/NAME.npz.

    FOLDER's own come last: mnist and fashion_mnist give their files the same names.
    """
    if not folder.is_dir():
        raise InputError(f"{DATA_DIR} {folder}", problem="no such folder")
    wanted = list(DOWNLOADS[name].md5)
    archive = folder / f"{name}.npz"
    inside, here = _found(wanted, folder / name), _found(wanted, folder)
    if len(inside) < len(wanted) and archive.is_file():
        return _read_sets(archive, DATA_DIR)
    found = inside if len(inside) >= len(here) else here
    missing = [file for file in wanted if file not in found]
    if missing:
        raise InputError(
            f"{DATA_DIR} {folder}",
            problem=f"{name} is not complete there",
            instead=f"put {', '.join(missing)} (or {name}.npz) into it",
        )
    subject = f"{DATA_DIR} {folder}"
    parts = [read_arrays(path, DATA_DIR) for path in found.values()]
    if name == "svhn":
        return image_sets([part["x"] for part in parts], [part.get("y") for part in parts], subject)
    train_x, train_y, test_x, test_y = (part["x"] for part in parts)
    return image_sets([train_x, test_x], [train_y, test_y], subject)


def _found(wanted: list[str], folder: Path) -> dict[str, Path]:
    candidates = {file: (folder / file, folder / file.removesuffix(".gz")) for file in wanted}
    return {
        file: next(path for path in paths if path.is_file())
        for file, paths in candidates.items()
        if any(path.is_file() for path in paths)
    }
