"""Use a few thousand bad files, arrays, values and command lines as a person would, and count what comes of it.

    python -m tests.fuzz.bad_input [--cases 2400] [--seed 1] [--workers 2] [--kinds video,prior] [--keep FOLDER]

Each case has a process of its own with a limit on time (10 s of a processor) and on memory (1 GB), see
`guard`. It has
to be refused with one sentence, or to work. Exit status 1 if any is not. The same seed gives the same cases; to
see one again, with the error in full:

    python -m tests.fuzz.bad_input --seed 1 --one "prior: hostile values" 17

Needs a system that can fork, and sees memory only on Linux.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fuzz import crafted, media, runs, weights
from tests.fuzz.guard import Kind, Outcome, Running, run_all
from tests.fuzz.valid_input import make_sound_files

KINDS: dict[str, Kind] = {**weights.KINDS, **media.KINDS, **crafted.KINDS, **runs.KINDS}


def cases(kinds: Sequence[str], count: int) -> Iterator[tuple[str, Kind, int]]:
    """Yield `count` cases, kind by kind in turn."""
    for number in range(-(-count // len(kinds))):
        for kind in kinds[: max(0, count - number * len(kinds))]:
            yield kind, KINDS[kind], number


def warm_up() -> None:
    """Import in this process what each case's own would have to import."""
    import torch._dynamo

    torch.set_num_threads(1)


def made_in_a_child(folder: Path) -> None:
    """Make the sound files where threads that a library starts do no harm: this process has to fork."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            make_sound_files(folder)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("the sound files could not be made")


def table(outcomes: Sequence[Outcome]) -> str:
    """Return how many cases of each kind were refused, worked or were wrong."""
    by_kind: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    rows = [("kind", "cases", "refused", "worked", "wrong", "most CPU s", "most MB")]
    for kind in [*KINDS, "all"]:
        of_kind = outcomes if kind == "all" else by_kind.get(kind, [])
        if not of_kind:
            continue
        count = Counter(outcome.result for outcome in of_kind)
        rows.append((
            kind, str(len(of_kind)), str(count["refused"]), str(count["worked"]), str(sum(not o.good for o in of_kind)),
            f"{max(o.seconds for o in of_kind):.1f}", f"{max(o.megabytes for o in of_kind):.0f}",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    )


def run(kinds: Sequence[str], count: int, seed: int, workers: int, folder: Path) -> list[Outcome]:
    """Run cases and print those that are wrong as they come."""
    sound = folder / "sound"
    warm_up()
    made_in_a_child(sound)
    outcomes: list[Outcome] = []
    asked: list[int] = []  # stopped before its end, the table of what was done is printed all the same
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    for outcome in run_all(cases(kinds, count), seed, sound, folder / "cases", workers):
        if asked:
            break
        outcomes.append(outcome)
        if not outcome.good:
            detail = "\n    ".join(outcome.detail.strip().splitlines()[-14:])
            print(
                f"{outcome.result}: {outcome.kind} {outcome.number}: {outcome.says}\n    {detail}", flush=True
            )
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kinds", default="", help="parts of the kinds' names, with commas")
    parser.add_argument("--keep", type=Path, help="a folder in which the cases that are wrong stay")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "NUMBER"))
    given = parser.parse_args()
    kinds = [kind for kind in KINDS if any(part in kind for part in given.kinds.split(","))]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.keep or Path(temporary)).absolute()
        if given.one:
            print(one(given.one[0], int(given.one[1]), given.seed, folder))
            return 0
        outcomes = run(kinds, given.cases, given.seed, given.workers, folder)
    print(table(outcomes))
    print(f"{len(outcomes)} cases with seed {given.seed} in {time.monotonic() - began:.0f} s")
    return int(not all(outcome.good for outcome in outcomes))


def one(kind: str, number: int, seed: int, folder: Path) -> Outcome:
    """Run one case again."""
    warm_up()
    made_in_a_child(folder / "sound")
    case = Running(kind, KINDS[kind], seed, number, folder / "sound", folder / "one")
    return next(
        found for _ in itertools.repeat(None) if (found := case.look()) is not None or time.sleep(0.01)
    )


if __name__ == "__main__":
    sys.exit(main())
