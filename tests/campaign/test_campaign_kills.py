"""A command that is killed, whenever that is, goes on to the result of the unbroken one, bit for bit."""

import random
import re
import shutil
from pathlib import Path

import pytest
from campaign_children import Children
from campaign_counts import Counted
from campaign_runs import LEAST, LONGER, SETTINGS, SHORTEST, again, differences, digests, train

KILLED = -9
COMPARE = [
    *("compare", "digits", "--learners", "vae", "short_run", "--seeds", "1", "--budget", "1epochs"),
    *("--samples", "20", "--likelihood-images", "0", "--points", "0", *LEAST),
]
OFTEN = 1e-9
"""Seconds between checkpoints for one after every update."""


def number(request: pytest.FixtureRequest, name: str) -> int:
    return vars(request.config.option)[f"campaign_{name}"]


class Broken:
    """Kills one command at chosen points and compares what it comes to afterwards.

    words: of the command. out: what it writes. whole: digests of the unbroken one. by_resuming: whether it goes on with
    `train --resume`, or with the same words.
    """

    def __init__(
        self, children: Children, words: list[str], out: Path, whole: dict[str, str], by_resuming: bool
    ) -> None:
        self.children, self.words, self.out, self.whole, self.by_resuming = children, words, out, whole, by_resuming

    def points(self) -> int:
        """Return how many points there are."""
        ending = self._killed_at(-1)
        found = re.search(r"^points (\d+)$", ending.said, re.MULTILINE)
        assert found is not None, ending.said
        return int(found[1])

    def _killed_at(self, point: int):
        shutil.rmtree(self.out, ignore_errors=True)
        arguments = {"words": self.words, "folder": str(self.out), "point": point}
        return self.children.run("campaign_kill_points:command_killed_at", arguments)

    def fault(self, point: int) -> str:
        """Return what is wrong after a kill at a point, or nothing."""
        ending = self._killed_at(point)
        if ending.code != KILLED:
            return f"point {point}: ended with {ending.code}: {ending.said[-300:]}"
        where = ending.said.strip().splitlines()[-1]
        ending = self.children.command(*(again(self.out, self.words) if self.by_resuming else self.words))
        if ending.code != 0:
            return f"point {point}, {where}: then {ending.code}: {ending.said[-300:]}"
        other = differences(self.whole, digests(self.out))
        left = [path.name for path in self.out.rglob(".*partial*")]
        return f"point {point}, {where}: {other} differ, {left} left" if other or left else ""


def broken(children: Children, words: list[str], work: Path, by_resuming: bool = True) -> Broken:
    """Return a command to be broken, after it has run whole once."""
    whole = work / "whole"
    assert children.command(*words, "--out", str(whole)).code == 0
    out = work / "broken"
    return Broken(children, [*words, "--out", str(out)], out, digests(whole), by_resuming)


def words_of(learner: str) -> list[str]:
    words = train(learner, Path("out"), OFTEN, SHORTEST)
    at = words.index("--out")
    return words[:at] + words[at + 2 :]


def spread(total: int, most: int) -> list[int]:
    """Return points from the first to the last, at most so many, or all for 0."""
    if most == 0 or most >= total:
        return list(range(total))
    return [round(k * (total - 1) / max(most - 1, 1)) for k in range(most)]


def test_a_run_killed_at_a_few_file_operations_goes_on_to_the_same_end(children: Children, tmp_path: Path) -> None:
    run = broken(children, words_of("short_run"), tmp_path)
    faults = [run.fault(point) for point in (0, 5, 41, 110)]
    assert not any(faults), faults


@pytest.mark.campaign
@pytest.mark.parametrize("command", ["short_run", "vae", "compare"])
def test_a_command_killed_at_every_file_operation_goes_on_to_the_same_end(
    command: str, children: Children, tmp_path: Path, counted: Counted, request: pytest.FixtureRequest
) -> None:
    compared = command == "compare"
    run = broken(children, COMPARE if compared else words_of(command), tmp_path, by_resuming=not compared)
    points, most = run.points(), number(request, "points")
    chosen = spread(points, most or (24 if compared else 0))  # a kill of compare costs a comparison and a half
    faults = [fault for fault in map(run.fault, chosen) if fault]
    counted(
        "kills before and after each file operation",
        {"command": command, "points": points, "kills": len(chosen), "faults": len(faults)},
    )
    assert not faults, "\n".join(faults)


@pytest.mark.campaign
@pytest.mark.parametrize("learner", SETTINGS)
def test_a_run_killed_at_random_moments_goes_on_to_the_same_end(
    learner: str, children: Children, tmp_path: Path, counted: Counted, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(f"{learner} {number(request, 'seed')}")
    runs = number(request, "kills") // len(SETTINGS) or 1
    whole = tmp_path / "whole"
    ending = children.command(*train(learner, whole, 3600, LONGER))
    assert ending.code == 0, ending.said
    expected, seconds = digests(whole), ending.seconds
    kills, faults = 0, []
    for _ in range(runs):
        shutil.rmtree(out := tmp_path / "killed", ignore_errors=True)
        words = train(learner, out, rng.choice((OFTEN, 0.05, 0.3)), LONGER)
        for _ in range(rng.choice((2, 2, 3, 5))):
            ending = children.command(*again(out, words), kill_after=rng.uniform(0.02, 0.9 * seconds))
            kills += ending.code == KILLED
            if ending.code not in (0, KILLED):
                faults.append(f"ended with {ending.code}: {ending.said[-300:]}")
        ending = children.command(*again(out, words))
        other = differences(expected, digests(out))
        if ending.code != 0 or other:
            faults.append(f"{ending.code}, {other} differ: {ending.said[-300:]}")
    counted("kills at random moments", {"learner": learner, "runs": runs, "kills": kills, "faults": len(faults)})
    assert not faults, "\n".join(faults)
