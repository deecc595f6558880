"""What the README says is what is there."""

import re
import tomllib
from pathlib import Path

from shortrun.cli import COMMANDS
from shortrun.config import recipe_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_calls_the_test_command() -> None:
    (command,) = re.findall(r"^    (python3 -m venv .*pytest)$", README, flags=re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_commands_and_recipes_are_named() -> None:
    for name in COMMANDS:
        assert f"shortrun {name} " in README, name
    for name in recipe_names():
        assert f"`{name}`" in README, name


def test_files_linked_are_there() -> None:
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_python_examples_compile() -> None:
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(examples) >= 2
    for example in examples:
        compile(example, "README.md", "exec")


def test_the_pinned_torch_is_one_that_the_package_admits() -> None:
    (pin,) = (ROOT / "constraints.txt").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+", pin)
    assert "torch>=2.6" in project["project"]["dependencies"]
