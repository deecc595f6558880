"""Mutated files through the readers, in a child with limits; what each case came to, a line a case."""

import json
import random
import resource
import shutil
import signal
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign_children import Children

MOST_SECONDS = 10
"""Of the processor, so that what else the machine does is not counted."""
HANGS = 60
"""Seconds by the clock after which a case is given up."""
MOST_BYTES = 10**9
NET = 2 * 10**9
"""Bytes of address space beyond `MOST_BYTES`, at which a case fails to allocate: so that none takes the machine's."""
ANEW = 3 * 10**8
"""Bytes that the memory of a child has grown by when another takes its place, so that each case is measured alike."""
STARTED, READ, REFUSED = "started", "read", "refused"


class TooSlow(BaseException):
    """A case took more than `HANGS` seconds."""


def cases(reader: str, runs: str, seed: int, first: int, last: int, folder: str, report: str) -> None:
    """Read the cases from `first` on and before `last`, and report each; for a child.

    report: file that takes a line when a case starts and another when it ends, so that a death has a name.
    """
    from campaign_readers import readers

    warnings.simplefilter("ignore")
    case, chosen = Path(folder), readers(Path(runs))[reader]

    def ring(*_: object) -> None:
        raise TooSlow

    signal.signal(signal.SIGALRM, ring)
    with open(report, "a", buffering=1) as lines:
        for number in range(first, last):
            shutil.rmtree(case, ignore_errors=True)
            case.mkdir(parents=True)
            chosen.make(case, random.Random(f"{reader} {seed} {number}"))
            lines.write(json.dumps({"case": number, "outcome": STARTED}) + "\n")
            outcome = outcome_of(lambda number=number: chosen.read(case, number))
            lines.write(json.dumps({"case": number, **outcome}) + "\n")
            if outcome["bytes"] > ANEW:
                return


def outcome_of(read: Any) -> dict[str, Any]:
    """Return what a case came to: read, refused, or the name of another exception, with its seconds and bytes."""
    from shortrun.errors import InputError

    before, began = peak(), worked()
    signal.alarm(HANGS)
    said = ""
    try:
        read()
        outcome = READ
    except InputError as error:
        said = str(error)
        outcome = REFUSED if "\n" not in said and len(said) < 2000 else "a message of many lines"
    except TooSlow:
        outcome = f"over {HANGS} s"
    except BaseException as error:  # noqa: BLE001  (every one of them is a finding)
        outcome, said = type(error).__name__, f"{error} {place(error)}"
    signal.alarm(0)
    seconds, grown = worked() - began, peak() - before
    if seconds > MOST_SECONDS:
        outcome = f"over {MOST_SECONDS} s"
    if grown > MOST_BYTES:
        outcome = f"over {MOST_BYTES:,} bytes"
    return {"outcome": outcome, "said": said[:300], "seconds": seconds, "bytes": grown}


USERS = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def peak() -> int:
    """Return the most bytes that this process, or one that it waited for, has had in memory."""
    return max(resource.getrusage(user).ru_maxrss for user in USERS) * 1024


def worked() -> float:
    """Return the seconds of the processor that this process, and those that it waited for, have taken."""
    return sum(resource.getrusage(user).ru_utime + resource.getrusage(user).ru_stime for user in USERS)


def place(error: BaseException) -> str:
    """Return the last line of the package that an exception went through."""
    trace, found = error.__traceback__, ""
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if "shortrun" in path.parts:
            found = f"({path.name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found


@dataclass
class Count:
    """What the cases of one reader came to."""

    reader: str
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0
    most_bytes: int = 0

    @property
    def row(self) -> dict[str, object]:
        """The row of the table of counts."""
        return {
            "reader": self.reader,
            "cases": self.outcomes.total(),
            "refused": self.outcomes[REFUSED],
            "read": self.outcomes[READ],
            "other": self.outcomes.total() - self.outcomes[REFUSED] - self.outcomes[READ],
            "slowest, CPU s": round(self.slowest, 2),
            "most memory, MB": round(self.most_bytes / 1e6),
        }


def fuzz(children: Children, reader: str, runs: Path, number: int, seed: int, work: Path) -> Count:
    """Return what so many cases of a reader came to; a child that dies is followed by another."""
    count, report, first = Count(reader), work / "report.jsonl", 0
    while first < number:
        report.unlink(missing_ok=True)
        ending = children.run(
            "campaign_fuzz:cases",
            {
                **{"reader": reader, "runs": str(runs), "seed": seed, "first": first, "last": number},
                **{"folder": str(work / "case"), "report": str(report)},
            },
            memory=MOST_BYTES + NET,
            timeout=3600.0,
        )
        lines = [json.loads(line) for line in report.read_text().splitlines()] if report.is_file() else []
        assert lines, ending.said
        if lines[-1]["outcome"] == STARTED:
            died = f"died ({ending.code})"
            lines.append({**lines[-1], "outcome": died, "said": ending.said[-300:], "seconds": 0.0, "bytes": 0})
        for line in lines:
            if line["outcome"] != STARTED:
                add(count, line)
        first = lines[-1]["case"] + 1
    return count


def add(count: Count, line: dict[str, Any]) -> None:
    """Count one case."""
    count.outcomes[line["outcome"]] += 1
    count.slowest = max(count.slowest, line["seconds"])
    count.most_bytes = max(count.most_bytes, line["bytes"])
    if line["outcome"] not in (READ, REFUSED):
        count.findings.append(f"{count.reader}, case {line['case']}: {line['outcome']}: {line['said']}")
