"""Mutated files through every public reader: read, or refused in one line, within 10 s and 1 GB."""

import random
from pathlib import Path

import pytest
from campaign_children import Children
from campaign_counts import Counted
from campaign_fuzz import READ, REFUSED, fuzz, outcome_of
from campaign_readers import readers
from campaign_runs import SHORTEST, train

from shortrun.cli import main

NAMES = sorted(readers(Path("nowhere")))
OF_OTHERS = ("npy", "npz", "idx", "persistent", "glow", "resume", "mat")
"""Readers whose files other tests of the suite change at random, or whose cases take a second each."""
QUICK = [name for name in NAMES if not any(word in name for word in OF_OTHERS)]
EACH = 24


def share(reader: str) -> int:
    """Return how many of the cases a reader gets, in relation to others: few where each starts or trains something."""
    return 1 if "mat" in reader or "resume" in reader else 5


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    for learner in ("short_run", "vae"):
        assert main(train(learner, runs / learner, 3600, SHORTEST)) == 0
    return runs


@pytest.mark.parametrize("reader", QUICK)
def test_some_mutated_files_are_read_or_refused(reader: str, two_runs: Path, tmp_path: Path) -> None:
    chosen = readers(two_runs)[reader]
    for number in range(EACH):
        folder = tmp_path / str(number)
        folder.mkdir()
        chosen.make(folder, random.Random(f"{reader} quick {number}"))
        outcome = outcome_of(lambda folder=folder, number=number: chosen.read(folder, number))
        assert outcome["outcome"] in (READ, REFUSED), (number, outcome)


@pytest.mark.campaign
@pytest.mark.parametrize("reader", NAMES)
def test_a_mutated_file_is_read_or_refused(
    reader: str,
    children: Children,
    finished_runs: Path,
    tmp_path: Path,
    counted: Counted,
    request: pytest.FixtureRequest,
) -> None:
    total, seed = (vars(request.config.option)[f"campaign_{name}"] for name in ("cases", "seed"))
    number = round(total * share(reader) / sum(map(share, NAMES)))
    count = fuzz(children, reader, finished_runs, number, seed, tmp_path)
    counted("fuzzed readers", count.row)
    assert not count.findings, "\n".join(count.findings)
