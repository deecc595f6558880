"""The pages of docs/: none is lost, links lead somewhere, and docstrings become what Sphinx reads."""

import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import shortrun
from shortrun.cli import COMMANDS
from shortrun.config import recipe_names

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.append(str(DOCS / "_extensions"))

from docstrings import converted  # noqa: E402

PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
BLOCK = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)


def name(page: Path) -> str:
    return page.relative_to(DOCS).with_suffix("").as_posix()


def entries(page: Path) -> list[str]:
    """Return what the tables of contents of a page name, from docs/ on; some are patterns."""
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    return [(page.parent / line).relative_to(DOCS).as_posix() for line in lines]


def reached(start: str) -> set[str]:
    """Return the pages that tables of contents lead to from one of them."""
    found, new = {start}, {start}
    while new:
        patterns = [entry for each in new for entry in entries(DOCS / f"{each}.md")]
        new = {name(page) for page in PAGES if any(fnmatch(name(page), entry) for entry in patterns)} - found
        found |= new
    return found


def test_every_page_is_in_the_table_of_contents() -> None:
    assert {name(page) for page in PAGES} - reached("index") == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(((?!https?:)[^)#\s]+)(?:#[^)]*)?\)", prose):
        assert (page.parent / target).is_file(), f"{target}: the site links to files only"


def test_commands_and_recipes_are_named() -> None:
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"`shortrun {command} " in page, command
    for recipe in recipe_names():
        assert f"| `{recipe}` |" in page, recipe


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)$", page, flags=re.MULTILINE))
    assert set(shortrun.__all__) - {"__version__"} == named
    tables = {each for each in shortrun.__all__ if each.endswith("Config") and each != "Config"}
    assert tables - {"LearnerConfig"} == set(re.findall(r"^\.\. settings:: (\w+)", page, flags=re.MULTILINE))


def test_python_examples_compile() -> None:
    for page in PAGES:
        for example in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            compile(example, str(page), "exec")


def test_a_docstring_becomes_restructured_text() -> None:
    lines = """Return |a| of `x`, the rows z_.

    |a| = a * x

x: (n, d), the rows
    and more.
note: no argument.

>>> f(1)
1""".splitlines()
    assert converted(lines, {"x"}) == [
        "Return \\|a\\| of ``x``, the rows z\\_.",
        "",
        "::",
        "",
        "    |a| = a * x",
        "",
        "",
        ":param x: (n, d), the rows",
        "    and more.",
        "",
        "note: no argument.",
        "",
        "",
        ">>> f(1)",
        "1",
    ]
