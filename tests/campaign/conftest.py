"""What the campaign's tests share: the process that forks their children, and their counts."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from campaign_children import Children
from campaign_counts import Counted
from campaign_runs import SETTINGS, SMALL, train


@pytest.fixture(scope="session")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    forking = Children(tmp_path_factory.mktemp("children"))
    yield forking
    forking.close()


@pytest.fixture(scope="session")
def finished_runs(children: Children, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of each learner."""
    runs = tmp_path_factory.mktemp("finished")
    for learner in SETTINGS:
        ending = children.command(*train(learner, runs / learner, 3600, SMALL))
        assert ending.code == 0, ending.said
    return runs


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Counted:
    """Call it with the name of a table and a row of it: the table is printed when all tests have ended."""

    def count(table: str, row: Mapping[str, object]) -> None:
        record_property("campaign", [table, dict(row)])

    return count
