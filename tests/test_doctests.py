"""The public names explain themselves: types, a line for each argument, and an example that runs."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shortrun

MODULES = sorted(
    each.name for each in pkgutil.walk_packages(shortrun.__path__, "shortrun.") if each.name != "shortrun.__main__"
)
TABLES = {name for name in shortrun.__all__ if name.endswith("Config")}
"""Their docstrings are help of the command line, and each setting has a docstring of its own, which is help too."""
PUBLIC = [name for name in shortrun.__all__ if callable(getattr(shortrun, name)) and name not in TABLES]


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the examples where they can be seen to write nothing outside the folders that they make themselves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHORTRUN_CACHE", str(tmp_path / "cache"))
    yield
    assert not list(tmp_path.iterdir())


def parameters(function: Callable) -> list[inspect.Parameter]:
    """Return those that a caller can name."""
    named = inspect.signature(function).parameters.values()
    return [each for each in named if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]


def arguments_of(value: Callable) -> list[inspect.Parameter]:
    """Return the arguments of a function, or of the making of a class."""
    return parameters(value.__init__)[1:] if inspect.isclass(value) else parameters(value)


def is_named(argument: str, docstring: str | None) -> bool:
    """Return whether a line of a docstring begins with an argument and a colon."""
    return re.search(rf"^ *{argument}: \S", docstring or "", re.MULTILINE) is not None


def methods(kind: type) -> list[tuple[str, list[type]]]:
    """Return the public methods of a class, each with the classes of the package that define it."""
    own = [each for each in kind.__mro__ if each.__module__.startswith("shortrun")]
    names = {name for each in own for name in vars(each) if not name.startswith("_")}
    found = [(name, [each for each in own if name in vars(each)]) for name in sorted(names)]
    return [(name, owners) for name, owners in found if inspect.isroutine(getattr(kind, name))]


CLASSES = [name for name in PUBLIC if inspect.isclass(getattr(shortrun, name))]
METHODS = [(name, method) for name in CLASSES for method, _ in methods(getattr(shortrun, name))]


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert not found.failed


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_an_example(name: str) -> None:
    value = getattr(shortrun, name)
    assert value.__doc__
    # an inherited docstring is about another name
    assert not inspect.isclass(value) or "__doc__" in vars(value)
    assert ">>> " in value.__doc__


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_types_and_a_line_for_each_argument(name: str) -> None:
    value = getattr(shortrun, name)
    arguments = arguments_of(value)
    assert [each.name for each in arguments if each.annotation is each.empty] == []
    assert [each.name for each in arguments if not is_named(each.name, value.__doc__)] == []
    if not inspect.isclass(value):
        assert inspect.signature(value).return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_a_method_has_types_and_a_line_for_each_argument(name: str, method: str) -> None:
    kind = getattr(shortrun, name)
    called = getattr(kind, method)
    arguments = [each for each in parameters(called) if each.name not in ("self", "cls")]
    assert called.__doc__
    assert [each.name for each in arguments if each.annotation is each.empty] == []
    # a method that a class defines anew has the arguments of the method that it takes the place of
    docstrings = [getattr(owner, method).__doc__ for owner in dict(methods(kind))[method]]
    assert [each.name for each in arguments if not any(is_named(each.name, words) for words in docstrings)] == []


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_says_what_it_is_of(name: str) -> None:
    table = getattr(shortrun, name)
    assert dataclasses.is_dataclass(table)
    assert "__doc__" in vars(table)


def test_types_are_for_users_too() -> None:
    assert (Path(shortrun.__path__[0]) / "py.typed").is_file()
