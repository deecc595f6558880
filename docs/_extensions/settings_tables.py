"""The directive `settings`: a table of the settings of one dataclass of the configuration, read from its source."""

import dataclasses
import typing
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import shortrun

MODULE = "shortrun.config.settings"


def explained(table: type, field: dataclasses.Field) -> str:
    """Return what a setting means: its docstring, or the help of its type."""
    words = ModuleAnalyzer.for_module(MODULE).find_attr_docs().get((table.__name__, field.name))
    if words:
        return " ".join(line for line in words if line)
    hints = typing.get_type_hints(table, include_extras=True)[field.name]
    return next((each.help for each in getattr(hints, "__metadata__", ()) if getattr(each, "help", None)), "")


def default(field: dataclasses.Field) -> str:
    """Return the default of a setting as a recipe writes it."""
    value = field.default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(default_of(each) for each in value) + "]"
    return "not given" if value is None else str(value)


def default_of(value: Any) -> str:
    """Return an item of a list as a recipe writes it."""
    return str(list(value)) if isinstance(value, tuple) else str(value)


class Settings(SphinxDirective):
    """`{settings} InferenceConfig inference`: the dataclass, and the name of its table in a recipe."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        name, prefix = self.arguments
        kind = getattr(shortrun, name)
        rows = [["setting", "default", "meaning"]]
        for field in dataclasses.fields(kind):
            if field.default is not dataclasses.MISSING:
                rows.append([f"{prefix}.{field.name}", default(field), explained(kind, field)])
        return [self.table(rows)]

    def table(self, rows: list[list[str]]) -> nodes.table:
        """Return rows of text, of which the first is the head, as a table; the first two columns are code."""
        group = nodes.tgroup(cols=3)
        group += [nodes.colspec(colwidth=width) for width in (25, 20, 55)]
        head, body = nodes.thead(), nodes.tbody()
        for place, row in enumerate(rows):
            entries = nodes.row()
            for column, text in enumerate(row):
                inner = nodes.literal("", text) if place and column < 2 else nodes.Text(text.replace("`", ""))
                entries += nodes.entry("", nodes.paragraph("", "", inner))
            (body if place else head).append(entries)
        group += [head, body]
        return nodes.table("", group, classes=["colwidths-given"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True}
