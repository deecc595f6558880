"""Docstrings as the package writes them, turned into the reStructuredText that autodoc reads.

A docstring has paragraphs, formulas that are indented by four spaces, one line for each argument (`x: (n, c, h, w), the
images.`) and an example. Its characters mean themselves, but for `code` between backquotes.
"""

import inspect
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ARGUMENT = re.compile(r"([a-z_][\w]*(?:, [a-z_][\w]*)*): (\S.*)")
MARKUP = re.compile(r"([\\*|_])")


def escaped(text: str) -> str:
    """Return a line in which nothing is markup but `code`, which becomes ``code``."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(f"`{part}`" if part.startswith("`") else MARKUP.sub(r"\\\1", part) for part in parts)


def converted(lines: Sequence[str], arguments: set[str]) -> list[str]:
    """Return the lines of a docstring as reStructuredText.

    lines: without the indentation that they have in common.
    arguments: names that a line of arguments may begin with.
    """
    made, inside = [], ""
    for line in lines:
        words = line.strip()
        found = ARGUMENT.fullmatch(words)
        if not words:
            inside = inside if inside == "formula" else ""
            made.append("")
        elif words.startswith((">>>", "...")) or inside == "example":
            made += [""] * (inside != "example") + [line]
            inside = "example"
        elif not line.startswith(" ") and found and set(found[1].split(", ")) <= arguments:
            made += [""] * (inside != "argument")
            made += [f":param {name}: {escaped(found[2])}" for name in found[1].split(", ")]
            inside = "argument"
        elif line.startswith("    ") and inside in ("", "formula"):
            made += [] if inside == "formula" else ["::", ""]
            made.append(line)
            inside = "formula"
        elif line.startswith(" ") and inside == "argument":
            made.append("    " + escaped(words))
        else:
            made += [""] * (inside == "argument") + [escaped(words)]
            inside = "text"
    return made


def convert(app: "Sphinx", what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Rewrite the lines of a docstring in place, as the event of autodoc asks for."""
    callable_ = inspect.isclass(value) or inspect.isroutine(value)
    lines[:] = converted(lines, set(inspect.signature(value).parameters) if callable_ else set())


def made_by(
    app: "Sphinx", what: str, name: str, value: Any, options: Any, given: str | None, returned: str | None
) -> tuple[str, None] | None:
    """Return the signature of a class where autodoc finds another one than the class is made by.

    A dataclass of settings has none, since its table stands below it. Autodoc takes that of a learner from its
    metaclass, which is `(*args, **kwargs)`.
    """
    if what == "class" and name.endswith("Config"):
        return "", None
    if what != "class" or given is None or "*args" not in given:
        return None
    from sphinx.util.inspect import signature, stringify_signature

    made = stringify_signature(signature(value.__init__, bound_method=True), unqualified_typehints=True)
    return "()" if "*args" in made else made.removesuffix(" -> None"), None


def setup(app: "Sphinx") -> dict[str, bool]:
    """Connect to autodoc."""
    app.connect("autodoc-process-docstring", convert)
    app.connect("autodoc-process-signature", made_by)
    return {"parallel_read_safe": True}
