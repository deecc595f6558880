"""shortrun report: write a run as one HTML file."""

from dataclasses import dataclass
from pathlib import Path

from shortrun.commands.inputs import Run
from shortrun.commands.outputs import choose_place, refuse_others
from shortrun.commands.parsing import parse
from shortrun.errors import InputError

COMMAND = "shortrun report"


@dataclass(frozen=True)
class Report:
    """Write a run as one HTML file: settings, curves, pictures, test figures and the diagnosis, if there is one.

    The file holds its pictures and asks no network for anything, so that it can be sent to somebody. A run that is not
    finished, or damaged, is shown as far as it goes.
    """

    run: Run
    """Folder of a run that shortrun train made, or of a saved model; or pretrained:digits, which is brought along."""
    out: Path | None = None
    """File to write; RUN/report.html where not given."""


ARGUMENTS = (Report,)


def main(words: list[str]) -> int:
    """Parse, read, write."""
    arguments = parse(Report, words, COMMAND)
    out = arguments.out or choose_place(arguments.run) / "report.html"
    if out.is_dir():
        raise InputError("out", problem=f"{out} is a folder", instead="write the path of a file")
    refuse_others(out.parent, [out.name], COMMAND)

    from shortrun.files import write_text
    from shortrun.pages.report import report

    page = report(arguments.run)
    try:
        write_text(out, page)
    except OSError as error:
        raise InputError(
            "out", problem=f"{out} cannot be written ({error.strerror or error})", instead="write another file"
        ) from None
    print(f"wrote {out}")
    return 0
