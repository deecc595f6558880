"""Charts in one style, drawn without a display and without global state."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Literal

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from PIL import Image

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's, which the colour-blind can tell apart."""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=COLOURS),
}


class Page:
    """A sheet of panels: `panels` is a list of axes, row by row; `picture` renders it."""

    def __init__(self, figure: Figure, panels: list[Axes]) -> None:
        self.figure, self.panels = figure, panels

    def picture(self) -> Image.Image:
        """Return the sheet as an image."""
        file = BytesIO()
        FigureCanvasAgg(self.figure).print_png(file)
        return Image.open(file).convert("RGB")


def log_sizes(panel: Axes, axis: Literal["x", "y"] = "x") -> None:
    """Give a panel a logarithmic axis with plain numbers, 0.01, 0.02, 0.05 and so on."""
    chosen = panel.xaxis if axis == "x" else panel.yaxis
    panel.set(**{f"{axis}scale": "log"})
    chosen.set_major_locator(LogLocator(subs=(1, 2, 5)))
    chosen.set_major_formatter(FormatStrFormatter("%g"))
    chosen.set_minor_formatter(NullFormatter())


@contextmanager
def page(rows: int, columns: int, panel: tuple[float, float] = (4.0, 2.8)) -> Iterator[Page]:
    """Give an empty page of rows x columns panels, each of panel = (width, height) inches, to draw on in the block."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(columns * panel[0], rows * panel[1]), dpi=120, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False)
        yield Page(figure, list(np.ravel(panels)))
