"""shortrun inpaint on one's own damaged photos: each is filled in at its own size."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shortrun.commands.inputs import ImageArguments, how_many, random_numbers
from shortrun.commands.outputs import choose_folder, warn_of_failed, write_outputs, writing_pictures
from shortrun.errors import InputError, renaming

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    from shortrun.data.damage import Damage, DamagedPhoto
    from shortrun.learners import Learner
    from shortrun.tasks.photos import Filled, Photo, Seen, Window

TOP = 0.25
"""Standard deviation, pixels in [0, 1], that a map of uncertainty shows white: the same for all photos."""
SHOWN, SIDE = 8, 128
"""Photos in the picture of all, and the pixels of a side of each there."""
FILLED, UNCERTAINTY, OVERVIEW, ARRAYS = "filled", "uncertainty", "photos.png", "completions.npz"


class Job(NamedTuple):
    """A photo whose windows with damage are to be filled in."""

    path: Path
    parts: "list[Window]"


def damage_of(arguments: ImageArguments, mask: str, colour: str | None, learner: "Learner") -> "Damage | None":
    """Return where photos of the user's own are damaged; None where the mask is for images of the model's size.

    arguments: of the command.
    mask: its value of --mask.
    colour: its value of --mask-colour.
    learner: whose images have a size.
    """
    path = Path(mask).expanduser()
    one_for_all = arguments.images is not None and not arguments.fit and _of_another_size(path, learner)
    if colour is None and mask != "alpha" and not path.is_dir() and not one_for_all:
        return None

    from shortrun.data.damage import Damage

    if arguments.images is None:
        raise InputError("images", problem="masks like this are for photos of your own", instead="add --images FOLDER")
    for name, given in (("fit", arguments.fit), ("pixel_range", arguments.pixel_range)):
        if given:
            raise InputError(name, problem="photos are filled in at their own size, as they are", instead="drop it")
    return Damage("" if colour else mask, colour or "")


def _of_another_size(path: Path, learner: "Learner") -> bool:
    from shortrun.data.pictures import header, is_image_file

    assert learner.description is not None  # what is loaded from a folder has one
    if not (path.is_file() and is_image_file(path)):
        return False
    with renaming({"path": "mask"}):
        found = header(path)
    return (found.height, found.width) != tuple(learner.description.image_shape[1:])


def fill_photos(
    arguments: ImageArguments, learner: "Learner", damage: "Damage", completions: int, keeps_arrays: bool, command: str
) -> int:
    """Fill in photos, write one of each, a map of uncertainty and a picture of all; return the exit code.

    arguments: of the command, with images.
    learner: ready to use.
    damage: where photos are damaged.
    completions: of each window.
    keeps_arrays: whether all completions are written.
    command: as files name what made them.
    """
    from shortrun.data.damage import list_photos
    from shortrun.progress import shown
    from shortrun.tasks.photos import fill, paste, seen_through

    assert arguments.images is not None
    assert learner.description is not None
    shape = learner.description.image_shape
    folder, paths = Path(arguments.images).expanduser(), list_photos(arguments.images)
    paths = paths[: how_many(arguments.n, len(paths), None, "photo")]
    files = names_of(paths, folder)
    wanted = [f"{place}/{name}.png" for place in (FILLED, UNCERTAINTY) for name in files]
    out = choose_folder(arguments, command, "inpainting", [OVERVIEW, *wanted, *([ARRAYS] if keeps_arrays else [])])

    def read(path: Path) -> "DamagedPhoto":
        return read_damaged(path, folder, damage, shape)

    seen, jobs = [], []
    for path in shown(paths, "reading", "photo"):
        photo = read(path)
        parts = damaged_windows(photo)
        jobs.append(Job(path, parts))
        seen += [seen_through(photo.pixels, photo.observed, part, shape[1:]) for part in parts]
    if not seen:
        raise InputError("mask", problem="no pixel is missing in any photo", instead="paint those to fill in black")
    filled = fill(
        learner,
        seen,
        random_numbers(arguments.seed),
        completions,
        arguments.steps,
        arguments.noise,
        arguments.batch_size,
    )
    first, overview, untouched = 0, [], 0
    with writing_pictures(out, command, arguments) as write:
        for job in shown(jobs, "filling in", "photo"):
            # read again: all photos of a large folder at once may be more than memory holds
            photo, count = read(job.path), len(job.parts)
            untouched += not count
            mine = filled.rows(slice(first, first + count))
            made = paste(photo.pixels, photo.observed, job.parts, mine)
            first += count
            write(to_picture(made.pixels), f"{FILLED}/{photo.name}.png")
            write(uncertainty_of(made), f"{UNCERTAINTY}/{photo.name}.png")
            if len(overview) < SHOWN:
                overview.append((photo, made))
        write(draw(overview), OVERVIEW)
    windows = f"{len(seen)} square windows at {shape[1]}x{shape[2]} pixels"
    print(
        f"filled in {len(paths) - untouched} of {len(paths)} photos through {windows}, the mean of "
        f"{completions} completions each; observed pixels are as given"
    )
    print(f"uncertainty: standard deviation of pixels in [0, 1], black 0, white {TOP} and more")
    for name in (FILLED, UNCERTAINTY, OVERVIEW):
        print(f"wrote {out / name}")
    if keeps_arrays:
        write_outputs(out, command, arguments, {}, arrays(jobs, files, seen, filled), ARRAYS)
    warn_of_failed(filled.failed)
    return 0


def read_damaged(path: Path, folder: Path, damage: "Damage", shape: tuple[int, int, int]) -> "DamagedPhoto":
    """Read a photo, grey where the model's images are."""
    from shortrun.data.damage import read_photo

    return read_photo(path, folder, damage, grey=shape[0] == 1)


def damaged_windows(photo: "DamagedPhoto") -> "list[Window]":
    """Return the windows of a photo, all of them where anything is missing in it."""
    from shortrun.tasks.photos import windows

    return [] if bool(photo.observed.all()) else windows(*photo.observed.shape)


def names_of(paths: list[Path], folder: Path) -> list[str]:
    """Return the names of photos; raise InputError where two would be written to one file."""
    from shortrun.data.folders import name_in

    taken: dict[str, Path] = {}
    for path in paths:
        name = name_in(folder, path)
        if name in taken:
            raise InputError("images", problem=f"{taken[name]} and {path} have one name", instead="rename one of them")
        taken[name] = path
    return list(taken)


def arrays(jobs: list[Job], names: list[str], seen: "list[Seen]", filled: "Filled") -> "dict[str, np.ndarray]":
    """Return the completions of all windows, and of which part of which photo each is."""
    import numpy as np

    from shortrun.figures.images import to_bytes

    pixels = to_bytes(filled.completions.flatten(0, 1))
    return {
        "completions": pixels.reshape(*filled.completions.shape[:2], *pixels.shape[1:]),
        "observed": np.stack([one.observed.numpy() for one in seen]),
        "photo": np.array([name for job, name in zip(jobs, names, strict=True) for _ in job.parts]),
        "window": np.array([part for job in jobs for part in job.parts]),
        "failed": filled.failed.numpy(),
    }


def to_picture(pixels: "torch.Tensor") -> "Image.Image":
    """Return the picture of pixels, (c, h, w)."""
    from PIL import Image

    array = pixels.numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def uncertainty_of(made: "Photo") -> "Image.Image":
    """Return the map of uncertainty of a photo."""
    from PIL import Image

    from shortrun.figures.images import heat

    shades = (heat(made.deviation[None, None], TOP)[0] + 1) * 127.5
    return Image.fromarray(shades.round().byte().permute(1, 2, 0).numpy())


def thumbnail(x: "torch.Tensor") -> "torch.Tensor":
    """Return the centre square of a map, (c, h, w), at the size that it has in the picture of all."""
    import torch

    side = min(x.shape[1:])
    top, left = (x.shape[1] - side) // 2, (x.shape[2] - side) // 2
    square = x[None, :, top : top + side, left : left + side]
    return torch.nn.functional.interpolate(square, (SIDE, SIDE), mode="area")[0]


def draw(photos: "list[tuple[DamagedPhoto, Photo]]") -> "Image.Image":
    """Draw a column for each photo: as given, filled in, and where it is uncertain."""
    import torch

    from shortrun.figures.images import captioned_rows, heat, shade_missing, to_rgb

    given = torch.stack([thumbnail(photo.pixels.float() / 127.5 - 1) for photo, _ in photos])
    mask = torch.stack([thumbnail(photo.observed[None].float()) for photo, _ in photos])
    made = torch.stack([thumbnail(made.pixels.float() / 127.5 - 1) for _, made in photos])
    spread = torch.stack([thumbnail(made.deviation[None]) for _, made in photos])
    rows = [
        ("given (checker: missing)", shade_missing(given, (mask > 0.5).float())),
        ("filled in", to_rgb(made)),
        (f"deviation, black 0, white {TOP:.2f}", heat(spread, TOP)),
    ]
    return captioned_rows(rows)
