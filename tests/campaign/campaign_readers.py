"""The readers of the package, each with files that it may get: name -> how a case is made and how it is read."""

import contextlib
import gzip
import io
import json
import random
import shutil
import struct
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
import tomli_w
import torch
from campaign_mutations import Mutate, changed_bytes, in_npy, in_packed_mat, in_png, in_safetensors, in_text
from PIL import Image

import shortrun
from shortrun.config import read_recipe
from shortrun.data import load_dataset, read_images, read_mask
from shortrun.training import resume
from shortrun.training.info import info

in_json = in_text(json.loads, json.dumps, "")
in_toml = in_text(tomllib.loads, tomli_w.dumps, "a = ")
SIDE = 8


@dataclass(frozen=True)
class Reader:
    """How a case of a reader is made, and how it is read.

    make: (folder, rng), writes the case into an empty folder. read: (folder, number of the case).
    """

    make: Callable[[Path, random.Random], object]
    read: Callable[[Path, int], object]


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def sound_arrays() -> dict[str, tuple[bytes, Mutate]]:
    """Return small sound files of arrays, and the changes of each: by the name of the reader."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (12, SIDE, SIDE), dtype=np.uint8), np.arange(12)
    mat = {"X": rng.integers(0, 255, (SIDE, SIDE, 3, 6), dtype=np.uint8), "y": y[:6, None]}
    idx = b"\0\0\x08\x03" + struct.pack(">III", 12, SIDE, SIDE) + x.tobytes()
    npy = written(lambda file: np.save(file, x))
    split = {"train_x": x, "train_y": y, "test_x": x[:4], "test_y": y[:4]}
    return {
        "npy": (npy, in_npy),
        "npz": (written(lambda file: np.savez(file, **split)), lambda data, rng: _in_npz(data, npy, rng)),
        "packed.npz": (written(lambda file: np.savez_compressed(file, x=x, y=y)), changed_bytes),
        "mat": (written(lambda file: scipy.io.savemat(file, mat)), changed_bytes),
        "packed.mat": (written(lambda file: scipy.io.savemat(file, mat, do_compression=True)), in_packed_mat),
        "idx": (idx, changed_bytes),
        "idx.gz": (gzip.compress(idx), lambda data, rng: _in_gzip(data, idx, rng)),
    }


def _in_npz(data: bytes, npy: bytes, rng: random.Random) -> bytes:
    """Return a changed archive, or a sound one of changed arrays."""
    if rng.random() < 0.5:
        return changed_bytes(data, rng)
    names = rng.choice(
        (["x.npy"], ["train_x.npy", "test_x.npy"], ["x.npy", "y.npy"], ["../../x.npy"], ["x"], ["y.npy"])
    )
    file = io.BytesIO()
    with zipfile.ZipFile(
        file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    ) as archive:
        for name in names:
            archive.writestr(name, in_npy(npy, rng))
    return file.getvalue()


def _in_gzip(data: bytes, inner: bytes, rng: random.Random) -> bytes:
    return changed_bytes(data, rng) if rng.random() < 0.5 else gzip.compress(changed_bytes(inner, rng))


def sound_pictures() -> dict[str, tuple[bytes, Mutate]]:
    """Return small sound pictures and their changes, by the end of their names."""
    rng = np.random.default_rng(1)
    colour = Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 60000, (SIDE, SIDE), dtype=np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6  # the orientation

    def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
        return written(lambda file: picture.save(file, kind, **options))

    frames = [colour.rotate(90)] * 3
    return {
        "png": (saved(colour, "PNG", exif=turned), in_png),
        "palette.png": (saved(colour.convert("P"), "PNG", transparency=3), in_png),
        "deep.png": (saved(deep, "PNG"), in_png),
        "jpg": (saved(colour, "JPEG", exif=turned), changed_bytes),
        "webp": (saved(colour, "WEBP", exif=turned), changed_bytes),
        "gif": (saved(colour, "GIF", save_all=True, append_images=frames), changed_bytes),
        "bmp": (saved(colour, "BMP"), changed_bytes),
        "tiff": (saved(colour, "TIFF", exif=turned), changed_bytes),
        "lzw.tiff": (saved(colour, "TIFF", compression="tiff_lzw"), changed_bytes),
        "ppm": (saved(colour, "PPM"), changed_bytes),
    }


def readers(runs: Path) -> dict[str, Reader]:
    """Return all readers; runs: folder with a finished run of each learner."""
    return {**_array_readers(), **_picture_readers(), **_run_readers(runs), **_recipe_readers()}


def _array_readers() -> dict[str, Reader]:
    def reader(name: str, data: bytes, mutate: Mutate) -> Reader:
        def read(folder: Path, number: int) -> object:
            path = folder / f"a.{name}"
            return (
                lambda: load_dataset(str(path)),
                lambda: read_images(path),
                lambda: read_images(path, shape=(1, SIDE, SIDE), fit=True),
            )[number % 3]()

        return Reader(lambda folder, rng: (folder / f"a.{name}").write_bytes(mutate(data, rng)), read)

    found = {name: reader(name, *sound) for name, sound in sound_arrays().items()}
    npy = written(lambda file: np.save(file, np.eye(SIDE, dtype=np.uint8)))
    mask = Reader(
        lambda folder, rng: (folder / "m.npy").write_bytes(in_npy(npy, rng)),
        lambda folder, number: read_mask(folder / "m.npy", (SIDE, SIDE)),
    )
    return {**found, "mask.npy": mask}


def _picture_readers() -> dict[str, Reader]:
    pictures = sound_pictures()

    def reader(name: str, data: bytes, mutate: Mutate) -> Reader:
        def read(folder: Path, number: int) -> object:
            path = folder / f"a.{name}"
            return (
                lambda: read_images(folder),
                lambda: read_images(path, shape=(1, SIDE, SIDE), fit=True),
                lambda: read_mask(path, (SIDE, SIDE)),
            )[number % 3]()

        return Reader(lambda folder, rng: (folder / f"a.{name}").write_bytes(mutate(data, rng)), read)

    def make_folder(folder: Path, rng: random.Random) -> None:
        for number in range(4):
            name = rng.choice(("png", "jpg", "gif", "palette.png"))
            data, mutate = pictures[name]
            (folder / f"{number}.{name}").write_bytes(mutate(data, rng) if rng.random() < 0.3 else data)

    found = {name: reader(name, *sound) for name, sound in pictures.items()}
    return {**found, "folder": Reader(make_folder, lambda folder, number: load_dataset(str(folder), image_size=SIDE))}


def _use(folder: Path, number: int) -> object:
    """Load a learner and draw from it."""
    learner = shortrun.load(folder)
    return learner.sample(2, torch.Generator().manual_seed(number))


def _use_density(folder: Path, number: int) -> object:
    return shortrun.load(folder).sample(2, torch.Generator().manual_seed(number), "fitted")


def _go_on(folder: Path, number: int) -> object:
    """Resume a run that is not finished."""
    (folder / "result.json").unlink()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return resume(folder, device="cpu")


def _say(folder: Path, number: int) -> object:
    return info(folder)


def _say_unfinished(folder: Path, number: int) -> object:
    (folder / "result.json").unlink()
    return info(folder)


def _run_readers(runs: Path) -> dict[str, Reader]:
    def reader(name: str, mutate: Mutate, read: Callable[[Path, int], object], learner: str = "short_run") -> Reader:
        def make(folder: Path, rng: random.Random) -> None:
            left_out = shutil.ignore_patterns("tensorboard", "figures", ".lock")
            shutil.copytree(runs / learner, folder, dirs_exist_ok=True, ignore=left_out)
            (folder / name).write_bytes(mutate((folder / name).read_bytes(), rng))

        return Reader(make, read)

    model, state = "checkpoint/config.json", "checkpoint/training.safetensors"
    found = {f"load {learner}: config.json": reader(model, in_json, _use, learner) for learner in ("short_run", "vae")}
    found |= {
        f"load {learner}: config.json": reader(model, in_json, _use, learner) for learner in ("persistent", "glow")
    }
    return {
        **found,
        "load: model.safetensors": reader("checkpoint/model.safetensors", in_safetensors, _use),
        "load glow: model.safetensors": reader("checkpoint/model.safetensors", in_safetensors, _use, "glow"),
        "load: latent_density.safetensors": reader(
            "checkpoint/latent_density.safetensors", in_safetensors, _use_density
        ),
        "resume: training.safetensors": reader(state, in_safetensors, _go_on),
        "resume persistent: training.safetensors": reader(state, in_safetensors, _go_on, "persistent"),
        "resume: origin.json": reader("origin.json", in_json, _go_on),
        "info: config.toml": reader("config.toml", in_toml, _say),
        "info: config.json": reader(model, in_json, _say),
        "info: result.json": reader("result.json", in_json, _say),
        "info: training.safetensors": reader(state, in_safetensors, _say_unfinished),
        "info: model.safetensors": reader("checkpoint/model.safetensors", in_safetensors, _say),
    }


def _recipe_readers() -> dict[str, Reader]:
    recipes = sorted((Path(shortrun.__file__).parent / "recipes").glob("*.toml"))

    def make(folder: Path, rng: random.Random) -> None:
        (folder / "r.toml").write_bytes(in_toml(rng.choice(recipes).read_bytes(), rng))

    def read(folder: Path, number: int) -> object:
        return read_recipe(str(folder / "r.toml"), (None, "vae", "glow", "persistent")[number % 4])

    return {"recipe": Reader(make, read)}
