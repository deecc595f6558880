"""A disk that is full ends a run in one line; with space again it goes on to the result of the unbroken one."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from campaign_children import Children, Ending
from campaign_counts import Counted
from campaign_runs import SMALL, again, differences, digests, train

OFTEN = 1e-9
LEARNERS = ("short_run", "vae", "persistent_disk", "glow")
SHARES = (0.01, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Of the space that the whole run takes: how large the disk is."""


def said_in_one_line(ending: Ending) -> str:
    """Return what is wrong with how a command ended that could not write, or nothing."""
    lines = [line for line in ending.said.splitlines() if line.startswith("shortrun: error: ")]
    fine = ending.code == 2 and len(lines) == 1 and "Traceback" not in ending.said
    return "" if fine else f"ended with {ending.code}: {ending.said[-400:]}"


def faults_at(
    children: Children, learner: str, out: Path, expected: dict[str, str], free: Callable[[], object], **limits: int
) -> tuple[bool, str]:
    """Return whether a run found no space, and what was wrong with how it ended and went on, or nothing."""
    words = train(learner, out, OFTEN, SMALL)
    ending = children.command(*words, **limits)
    if ending.code == 0:
        return False, "ended well and is another" if differences(expected, digests(out)) else ""
    fault = said_in_one_line(ending)
    free()
    ending = children.command(*again(out, words))
    other = differences(expected, digests(out)) if ending.code == 0 else []
    if ending.code != 0 or other:
        fault += f" with space: {ending.code}, {other} differ: {ending.said[-300:]}"
    return True, fault


@pytest.fixture
def whole(children: Children, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    out = tmp_path / "whole"
    ending = children.command(*train(request.getfixturevalue("learner"), out, 3600, SMALL))
    assert ending.code == 0, ending.said
    return out


@pytest.mark.campaign
@pytest.mark.parametrize("learner", LEARNERS)
def test_a_run_whose_files_may_not_grow_further_ends_in_one_line_and_goes_on(
    learner: str, whole: Path, children: Children, tmp_path: Path, counted: Counted
) -> None:
    """The portable stand-in for a full disk: a write beyond a number of bytes fails, as on a disk without space."""
    expected = digests(whole)
    sizes = sorted({path.stat().st_size for path in whole.rglob("*") if path.is_file() and path.stat().st_size > 1})
    faults, ended = [], 0
    for size in sizes:  # each file of the run is one that does not fit, but for a byte
        out = tmp_path / f"limited_{size}"
        short, fault = faults_at(children, learner, out, expected, lambda: None, file_size=size - 1)
        ended += short
        faults += [f"{size - 1} bytes: {fault}"] if fault else []
    row = {"learner": learner, "limits": len(sizes), "ended for it": ended, "faults": len(faults)}
    counted("files that may not grow further", row)
    assert not faults, "\n".join(faults)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a small disk in memory, or make it larger; skipped where that is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()

    def sized(size: int) -> Path:
        options = f"size={size}" + (",remount" if os.path.ismount(place) else "")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no file system may be mounted here: {done.stderr.decode().strip()}")
        return place

    yield sized
    if os.path.ismount(place):
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.campaign
@pytest.mark.parametrize("learner", LEARNERS)
def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on(
    learner: str, whole: Path, children: Children, disk: Callable[[int], Path], counted: Counted
) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    expected, page = digests(whole), os.sysconf("SC_PAGE_SIZE")
    taken = sum(-(-path.stat().st_size // page) * page for path in whole.rglob("*"))
    faults, ended = [], 0
    for share in SHARES:
        place = disk(int(share * taken))
        short, fault = faults_at(children, learner, place / "run", expected, lambda: disk(20 * taken))
        ended += short
        faults += [f"{share:.0%} of the space: {fault}"] if fault else []
        subprocess.run(["umount", str(place)], check=True)
    row = {"learner": learner, "sizes": len(SHARES), "ended for it": ended, "faults": len(faults)}
    counted("full disk", row)
    assert not faults, "\n".join(faults)
