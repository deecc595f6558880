"""Entrants' names as tables and pictures show them."""

from collections.abc import Iterable


def labels(names: Iterable[str]) -> dict[str, str]:
    """Return what each entrant is shown as: `vae,training.learning-rate=2e-3` as `vae, learning-rate 2e-3`.

    Where two would look alike, both keep their names.
    """
    short = {name: _label(name) for name in names}
    shown = list(short.values())
    return {name: label if shown.count(label) == 1 else name for name, label in short.items()}


def _label(name: str) -> str:
    entrant, *settings = name.split(",")
    pairs = [setting.partition("=") for setting in settings]
    return ", ".join([entrant, *(f"{key.rpartition('.')[2]} {value}".strip() for key, _, value in pairs)])
