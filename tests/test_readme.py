"""What the README says is what is there."""

import re
import tomllib
from pathlib import Path

from shortrun.cli import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_calls_the_test_command() -> None:
    (command,) = re.findall(r"^    (python3 -m venv .*pytest)$", README, flags=re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_it_is_short() -> None:
    assert len([word for word in README.split() if re.search(r"\w", word)]) <= 900


def test_commands_are_what_they_say() -> None:
    """Every line of a command names one; `tests/test_docs.py` holds the list of all."""
    for name in re.findall(r"^    shortrun (\S+) ", README, flags=re.MULTILINE):
        assert name in COMMANDS


def test_files_linked_are_there() -> None:
    for target in re.findall(r"\]\(((?!http)[^)#]+)(?:#[^)]*)?\)", README):
        assert (ROOT / target).exists(), target


def test_the_python_example_is_that_of_the_docs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    compile(example, "README.md", "exec")
    start = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    assert example in start


def test_the_pinned_torch_is_one_that_the_package_admits() -> None:
    (pin,) = (ROOT / "constraints.txt").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+", pin)
    assert "torch>=2.6" in project["project"]["dependencies"]
