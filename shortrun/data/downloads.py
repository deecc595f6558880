"""Public data sets that are fetched on first use and checked."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shortrun.errors import InputError


@dataclass(frozen=True)
class Download:
    """The files of a data set: MD5 checksums, as their publishers or torchvision give them, and where they lie."""

    mirrors: tuple[str, ...]
    md5: Mapping[str, str]


DOWNLOADS = {
    "mnist": Download(
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": Download(
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "svhn": Download(
        ("http://ufldl.stanford.edu/housenumbers/",),
        {
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
    ),
}


def fetch(name: str) -> Path:
    """Return the folder in the system's cache with the files of `mnist`, `fashion_mnist` or `svhn`, downloaded once.

    Raises InputError where the folder cannot be made, where a file cannot be had, or where what came is not the
    published file.
    """
    import pooch

    folder = Path(pooch.os_cache("shortrun")) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "source",
            problem=f"{name} is downloaded to {folder}, which cannot be made ({error.strerror or error})",
            instead=_by_hand(name),
        ) from None
    for file in DOWNLOADS[name].md5:
        _fetch_file(name, file, folder)
    return folder


def _fetch_file(name: str, file: str, folder: Path) -> None:
    import pooch

    download = DOWNLOADS[name]
    failures = []
    for mirror in download.mirrors:
        try:
            pooch.retrieve(mirror + file, f"md5:{download.md5[file]}", file, folder, progressbar=sys.stderr.isatty())
            return
        except OSError as error:  # what requests raises is one too, also where it is a ValueError beside
            failures.append(f"{mirror}: {type(error).__name__}, no network or no such address")
        except ValueError:
            failures.append(f"the checksum of what {mirror} sent is not that of the published file")
    raise InputError(
        "source",
        problem=f"cannot download {name}'s {file} ({'; '.join(failures)})",
        instead=_by_hand(name),
    )


def _by_hand(name: str) -> str:
    return f"put {', '.join(DOWNLOADS[name].md5)} or {name}.npz into a folder and set data_dir to it"
