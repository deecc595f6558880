"""shortrun info: say what a run is and what it reached."""

from dataclasses import dataclass

from shortrun.commands.inputs import Run
from shortrun.commands.parsing import parse


@dataclass(frozen=True)
class Info:
    """Say what a run is, how far it is, and what it reached on test images."""

    run: Run
    """Folder of a run that shortrun train made, or of a saved model."""


ARGUMENTS = (Info,)


def main(words: list[str]) -> int:
    """Parse, read, print."""
    arguments = parse(Info, words, "shortrun info")

    from shortrun.training import info

    print(info(arguments.run))
    return 0
