"""Who may import whom: every room imports only rooms to its left."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "shortrun"

SHARED = {
    "continuation",
    "errors",
    "files",
    "interruption",
    "mapping",
    "memory",
    "modes",
    "normals",
    "pixels",
    "progress",
    "registry",
}
SHARED |= {"continuation", "streams", "sums", "version"}
# rooms of one line do not import one another
ORDER = [
    {"model", "inference", "data", "figures", "config", "metrics"},
    {"learners"},
    {"tasks", "evaluation", "diagnosis"},
    {"training", "densities"},
    {"compare", "front", "estimator", "pages"},
    {"experiments"},
    {"commands"},
    {"cli"},
]
PLACE = {**dict.fromkeys(SHARED, -1), **{room: place for place, rooms in enumerate(ORDER) for room in rooms}}
FRONT = {"__init__.py", "__main__.py"}  # the public names and `python -m shortrun` see everything
FILES = sorted(path for path in PACKAGE.rglob("*.py") if str(path.relative_to(PACKAGE)) not in FRONT)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST, package: list[str]) -> set[str]:
    """Return the dotted names that a file imports, those inside functions and `if TYPE_CHECKING` too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "shortrun" else {module}
    return names


def rooms_imported(source: str, package: list[str]) -> set[str]:
    modules = (name.split(".") for name in imported_modules(ast.parse(source), package))
    return {(parts[1] if len(parts) > 1 else "") for parts in modules if parts[0] == "shortrun"}


def violations(room: str, imported: set[str]) -> list[str]:
    if room not in PLACE:
        return [f"{room}: a room without a place in the order; write one in tests/test_imports.py"]
    return [
        f"{room} imports {other or 'the front of the package'}"
        for other in sorted(imported - {room})
        if other not in PLACE or (other not in SHARED and PLACE[other] >= PLACE[room])
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_to_its_left(path: Path) -> None:
    package = ["shortrun", *path.relative_to(PACKAGE).parts[:-1]]
    imported = rooms_imported(path.read_text(encoding="utf-8"), package)
    assert violations(room_of(path), imported) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("model", "from shortrun.inference import short_run"),
        ("model", "import shortrun.config"),
        ("data", "def read():\n    from shortrun.config import DataConfig"),
        ("inference", "from ..model import TopDown"),
        ("inference", "from .. import model"),
        ("learners", "from shortrun.training.loop import train"),
        ("learners", "from shortrun import tasks"),
        ("tasks", "from shortrun.evaluation import mse"),
        ("evaluation", "from shortrun.tasks.inpaint import inpaint"),
        ("training", "import shortrun.commands.train as train"),
        ("model", "import shortrun"),
        ("model", "from shortrun import ShortRun"),
        ("files", "from shortrun.config import Config"),
        ("helpers", "import math"),
    ],
)
def test_the_rule_sees(room: str, source: str) -> None:
    assert len(violations(room, rooms_imported(source, ["shortrun", room]))) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        (
            "model",
            "from shortrun.errors import InputError\nfrom shortrun.model.blocks import Inject\nfrom . import blocks",
        ),
        ("cli", "from shortrun.version import __version__\nimport shortrun.training"),
        ("commands", "from shortrun.training.info import info\nimport torch, shortrunner"),
        ("compare", "from shortrun import learners, errors"),
    ],
)
def test_the_rule_lets_pass(room: str, source: str) -> None:
    assert violations(room, rooms_imported(source, ["shortrun", room])) == []


def test_metrics_know_no_learner_and_no_data_set() -> None:
    """Tensors in, numbers out: of the package they import what all rooms share, and nothing else."""
    imported = set()
    for path in sorted((PACKAGE / "metrics").glob("*.py")):
        imported |= rooms_imported(path.read_text(encoding="utf-8"), ["shortrun", "metrics"])
    assert not imported & {"learners", "data"}
    assert imported <= SHARED | {"metrics"}


@pytest.mark.parametrize("module", ["shortrun", "shortrun.cli", "shortrun.config"])
def test_help_does_not_wait_for_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"import {module} imports torch {done.stderr}"


def test_no_two_files_import_each_other_in_a_circle() -> None:
    """Imports for types count too: a circle of names is one that a reader has to walk."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    arrows = {
        name: imported_modules(ast.parse(path.read_text(encoding="utf-8")), name.split(".")[:-1])
        & modules.keys() - {name}
        for name, path in modules.items()
    }
    while arrows:  # take away files that import nothing that is left; what stays is a circle, or leads to one
        ends = {name for name, others in arrows.items() if not others & arrows.keys()}
        assert ends, f"a circle among {sorted(arrows)}"
        arrows = {name: others for name, others in arrows.items() if name not in ends}
