"""The page on extending the package: its files are written, its commands run, its changes made to a copy."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SMALL = "--training.updates 6 --training.fit-images 20 --data.train-limit 120 --data.test-limit 40 --model.width 16"
FEW = "--samples 40 --likelihood-images 2 --temperatures 5 --importance-samples 4"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def commands() -> list[list[str]]:
    """Return the page's commands with what makes them small; those of `compare` have a budget already."""
    found = []
    for line in "".join(blocks("sh")).splitlines():
        program, name, *rest = line.split()
        assert program == "shortrun"
        more = {"train": SMALL, "experiment": SMALL, "evaluate": FEW, "compare": f"{SMALL} --seeds 1 --samples 40"}[
            name
        ]
        found.append([name, *rest, *more.split(), *(["--likelihood-images", "2"] if name == "compare" else [])])
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of the package, the page's files, and the page's changes in them."""
    folder = tmp_path_factory.mktemp("extending")
    shutil.copytree(ROOT / "shortrun", folder / "shortrun", ignore=shutil.ignore_patterns("__pycache__"))
    for source in blocks("python"):
        name = source.split("\n", 1)[0].removeprefix("# ")
        text = source.split("\n", 1)[1]
        if name == "notebook.py":
            text = text.replace('"runs/from_python"', f'"{folder}/runs/from_python"')
        (folder / name).write_text(text, encoding="utf-8")
    for change in blocks("diff"):
        path, *lines = change.splitlines()
        file = folder / path.removeprefix("# ")
        text = file.read_text(encoding="utf-8")
        for part in re.findall(r"(?:^-.*\n)+(?:^\+.*\n)+", "\n".join(lines) + "\n", flags=re.MULTILINE):
            before = "".join(f"{line[1:]}\n" for line in part.splitlines() if line.startswith("-"))
            after = "".join(f"{line[1:]}\n" for line in part.splitlines() if line.startswith("+"))
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        file.write_text(text, encoding="utf-8")
    return folder


DRIVER = """
import contextlib, io, json, sys
from shortrun.cli import main

done = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    done.append([code, out.getvalue(), err.getvalue()])
json.dump(done, sys.stdout)
"""
"""Runs commands one after the other in one process, since importing the package takes longer than most of them."""


def python(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(place), "SHORTRUN_CACHE": str(place / "cache")}
    return subprocess.run(
        [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def run(place: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """Return the exit code, the output and the errors of each command of shortrun."""
    done = python(place, "-c", DRIVER, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    return [tuple(each) for each in json.loads(done.stdout)]


def test_the_commands_of_the_page_run(place: Path) -> None:
    said = {}
    for words, (code, out, errors) in zip(commands(), run(place, *commands()), strict=True):
        assert code == 0, (words, errors)
        said[" ".join(words[:2])] = out
    assert "Student" in said["evaluate runs/student"], "the likelihood is a condition of log p(x)"
    assert "variation_prior" in said["evaluate runs/student"], "the metric of the page is among the figures"
    assert re.search(r"\| K5 \| 0\.\d{4} \|", said["experiment lengths"])
    table = (place / "runs" / "race" / "table.md").read_text()
    assert "several:Several" in table
    assert "variation" in table, "the metric of the page has a column"


def test_what_comes_from_outside_is_used_like_what_is_built_in(place: Path) -> None:
    run_folder = place / "runs" / "several_too"
    train = ["train", "digits", "--learner", "several:Several", *SMALL.split(), "--out", str(run_folder)]
    more = {"sample": ["--n", "2"], "reconstruct": ["--n", "2"], "diagnose": ["--n", "8", "--steps", "3"]}
    uses = [[name, str(run_folder), *more.get(name, [])] for name in ("info", "sample", "reconstruct", "diagnose")]
    assert run(place, train)[0][0] == 0
    (run_folder / "result.json").unlink()  # a run that was stopped after its last checkpoint
    for code, _, errors in run(place, ["train", "--resume", str(run_folder)], *uses):
        assert code == 0, errors
    saved = "import shortrun, sys; shortrun.load(sys.argv[1]).save_pretrained('saved'); shortrun.load('saved')"
    done = python(place, "-c", saved, str(run_folder))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["notebook.py", "own_decoder.py"])
def test_python_takes_the_class_itself(place: Path, name: str) -> None:
    text = (place / name).read_text(encoding="utf-8")
    few = "config.training.__dict__['updates'] = 3  # by the test, for its time\n"
    (place / name).write_text(text.replace("run = shortrun", f"{few}run = shortrun"), encoding="utf-8")
    done = python(place, name)
    assert done.returncode == 0, done.stderr


def test_a_module_that_is_not_there_is_refused_in_one_line(place: Path) -> None:
    cases = {
        "--learner: got 'severl:Several'; write a module that can be imported": ["--learner", "severl:Several"],
        "--model.likelihood: got 'student:Studnt'; write a class or a function": [
            "--model.likelihood",
            "student:Studnt",
        ],
        "--encoder.blocks: the model's blocks, plain:decoder,": ["--learner", "vae", "--model.blocks", "plain:decoder"],
        "--own.chains: got 0; write a whole number of at": ["--learner", "several:Several", "--own.chains", "0"],
    }
    done = run(place, *(["train", "digits", *words] for words in cases.values()))
    for line, (code, out, errors) in zip(cases, done, strict=True):
        assert (code, out) == (2, "")
        assert errors.startswith(f"shortrun: error: {line}")
        assert errors.count("\n") == 1
