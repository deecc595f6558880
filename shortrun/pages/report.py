"""A run as one page: what it is, what it reached, its curves, pictures and diagnosis."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from shortrun.data.pictures import open_picture
from shortrun.diagnosis import conclusion
from shortrun.diagnosis.verdict import Finding
from shortrun.errors import InputError, undamaged
from shortrun.files import read_json
from shortrun.pages.curves import constant, draw_curve, read_curves
from shortrun.pages.html import STYLE, escaped, figure, note, row, table
from shortrun.training.info import described, found_run, reached
from shortrun.training.run_folder import RunFolder
from shortrun.version import __version__

MADE_BY = "shortrun report"
"""What the page says made it, so that the next report may take its place."""
SIDE = 2400
"""Pixels of the longer side of a picture; larger ones are made smaller."""
MOST_WORDS = 100_000
"""Characters of config.toml that are shown."""

Part = Callable[[RunFolder], str]


def report(run_path: str | Path) -> str:
    """Return a run as one HTML page that asks no other file and no network for anything.

    What is damaged or not there yet is said in its place, and the rest is shown.

    run_path: its folder, finished or not; one that `save_pretrained` wrote; or pretrained:NAME.

    Raises InputError where it is neither.
    """
    run = found_run(run_path)
    title = escaped(run.path.resolve().name)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="{MADE_BY}">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }}
body {{ margin: 0 auto; max-width: 60rem; padding: 1rem; }}
{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{body(run)}
<footer><small>{escaped(run.path)}, written by {MADE_BY} {escaped(__version__)}</small></footer>
</body>
</html>
"""


def body(run: RunFolder) -> str:
    """Return the sections of the page; the other page shows them too.

    run: that is there.
    """
    sections: dict[str, Part] = {
        "The run": _described,
        "What it reached": lambda run: table(reached(run)) if run.config.is_file() else "",
        "Pictures": _pictures,
        "Curves": _curves,
        "Diagnosis": _diagnosis,
        "Settings": _settings,
    }
    found = ((title, _said(part, run)) for title, part in sections.items())
    whole = "\n".join(f"<section><h2>{title}</h2>\n{words}\n</section>" for title, words in found if words)
    return f'<div class="shortrun">\n{whole}\n</div>'


def _said(part: Part, run: RunFolder) -> str:
    """Return a part of the page, or why it is missing."""
    try:
        return part(run)
    except InputError as error:
        return note(str(error))


def _described(run: RunFolder) -> str:
    def said(words: Callable[[], str]) -> str:
        try:
            return words()
        except InputError as error:
            return str(error)

    return table((name, shown) for name, words in described(run) if (shown := said(words)))


def _pictures(run: RunFolder) -> str:
    return row(_picture(path, _caption(path)) for path in run.last_pictures)


def _caption(path: Path) -> str:
    known = {
        "samples.png": "samples from the prior",
        "samples_fitted.png": "samples from the density fitted to the latents of training images",
        "reconstructions.png": "test images and their reconstructions",
    }
    return known.get(path.name, path.stem.replace("_", " "))


def _picture(path: Path, caption: str) -> str:
    """Return a picture of a file, or why it cannot be shown.

    Its pixels are written anew: a file that is no picture, or a link to one, does not get into the page.
    """
    try:
        picture = open_picture(path)
    except InputError as error:
        return note(str(error))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return figure(picture if picture.mode in ("1", "L", "RGB", "P") else picture.convert("RGB"), caption)


def _curves(run: RunFolder) -> str:
    if not run.metrics.is_file():
        return ""
    curves = read_curves(run.metrics)
    parts = [figure(draw_curve(points), name) for name, points in curves.values.items() if not constant(points)]
    still = [f"{name} {points[0][1]:.4g}" for name, points in curves.values.items() if constant(points)]
    words = f"<p>The same all along: {escaped(', '.join(still))}.</p>" if still else ""
    if curves.unread:
        words += note(f"{curves.unread} lines of {run.metrics.name} are damaged and left out.")
    return row(parts, even=True) + words if parts or words else note("No record has been written yet.")


def _diagnosis(run: RunFolder) -> str:
    path = run.diagnosis / "diagnosis.json"
    if not path.is_file():
        return ""
    numbers = read_json(path)
    with undamaged(path):
        findings = [
            Finding(str(each["subject"]), bool(each["well"]), str(each["words"]), str(each["change"]))
            for each in numbers["findings"]
        ]
        c = numbers["conditions"]
        measured = f"measured on {c['images']} {c['split']} images with K = {c['steps']}, {c['date']}"
        verdict = [line.strip() for line in conclusion(findings)]
    rows = [(each.subject, f"{'well' if each.well else 'not well'}: {each.words}") for each in findings]
    said = "".join(f"<p>{escaped(line)}</p>" for line in (verdict[0], *verdict[1:][-1:], measured))
    return said + table(rows) + _picture(path.with_suffix(".png"), "the diagnosis in charts")


def _settings(run: RunFolder) -> str:
    if not run.config.is_file():
        return ""
    with undamaged(run.config), run.config.open(encoding="utf-8", errors="replace") as file:
        words = file.read(MOST_WORDS)
    return f"<details><summary>config.toml</summary><pre>{escaped(words)}</pre></details>"
