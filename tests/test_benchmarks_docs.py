"""The table of figures and the code behind them: it is complete, and says what is older."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from benchmarks import docs


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository in which a figure is made on day 1, its code changed on day 2 and other code on day 0."""
    (tmp_path / "docs" / "figures").mkdir(parents=True)
    (tmp_path / "code").mkdir()

    def commit(path: str, day: int) -> None:
        (tmp_path / path).write_text(str(day))
        date = f"{1_700_000_000 + 86_400 * day} +0000"
        environment = {**os.environ, "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date}
        for words in (["add", path], ["commit", "-qm", "a"]):
            names = ["-c", "user.name=a", "-c", "user.email=a@b"]
            subprocess.run(["git", *names, *words], cwd=tmp_path, env=environment, check=True)

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    commit("code/old.py", 0)
    commit("docs/figures/one.png", 1)
    commit("code/new.py", 2)
    return tmp_path


def entry(*code: str, file: str = "docs/figures/one.png") -> dict:
    return {"files": [file], "command": "make it", "code": list(code)}


def test_a_figure_is_older_than_code_that_changed_after_it(repository: Path) -> None:
    (one,) = docs.older(repository, [entry("code/old.py", "code/new.py")])
    assert (one.file, one.code) == ("docs/figures/one.png", "code/new.py")
    assert one.changed - one.made == 86_400
    assert docs.day(one.made) == "2023-11-15"
    assert len(docs.older(repository, [entry("code")])) == 1, "a folder is as new as its newest file"


def test_what_is_newer_or_has_no_code_or_no_commit_is_not_named(repository: Path) -> None:
    assert docs.older(repository, [entry("code/old.py"), entry(), entry("code", file="docs/figures/two.png")]) == []


def test_the_table_is_looked_at(repository: Path) -> None:
    assert docs.lost(repository, [entry("code")]) == []
    assert docs.lost(repository, []) == ["docs/figures/one.png: in no entry of the table"]
    assert docs.lost(repository, [entry("gone.py"), entry("code")]) == [
        "gone.py: in the table, and not there",
        "docs/figures/one.png: in two entries of the table",
    ]


def test_the_table_of_the_repository_is_complete() -> None:
    made = tomllib.loads((docs.ROOT / docs.TABLE).read_text(encoding="utf-8"))["made"]
    assert docs.lost(docs.ROOT, made) == []
