"""Do thousands of random things to a real napari window with our docks, and count what breaks.

    python -m tests.fuzz.monkey [--actions 10000] [--seed 1] [--each 250] [--from 0] [--keep FOLDER]
    python -m tests.fuzz.monkey --seed 1 --only 2500-2731          (again, as it was reported)

(with a screen, or under xvfb-run.) Layers of all kinds and dimensions come, go, move and get hostile names; the
canvas, keys, buttons, combo boxes and fields of all docks are used; priors, stores, comparisons and videos, good and
bad, are opened; runs begin and are cancelled. Each `--each` actions have a napari of their own. Action number n does
what n and the seed say to what is in the window then, so a range of numbers is a recipe to see a fault again, and
`--from` goes on after a stop. What counts as a fault is an exception that our code raises, a warning of Qt's, a
window that hangs for a minute, a process that ends by itself or is left behind. Exceptions that napari raises are
counted, and printed where they passed through our code; a person has to look whether they are ours. Exit status 1 if
there is any fault. A JSON line a napari, then a sum.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from tests import ROOT

HANG_S = 60
OURS, NAPARI = f"{os.sep}napari_samexp{os.sep}", f"{os.sep}napari{os.sep}"
# of the machine, not of what is done: a screen without a window manager, software OpenGL
NO_FAULT = re.compile(r"propagateSizeHints|XDG_RUNTIME_DIR|QXcb|libEGL|MESA|OpenGL|raise\(\)|requestActivate")


# ---- the parent: files, and one napari after the other


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=250, help="actions a napari")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the number of the first action")
    parser.add_argument("--only", help="a range of actions, such as 2500-2731, in one napari")
    parser.add_argument("--keep", type=Path, help="a folder for the files, which stays")
    parser.add_argument("--window", nargs=2, metavar=("FIRST", "LAST"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.window:
        work_in_a_window(args.keep, args.seed, range(int(args.window[0]), int(args.window[1])))
        return
    folder = (args.keep or Path(tempfile.mkdtemp(prefix="samexp-monkey-"))).absolute()
    try:
        sys.exit(run_all(folder, args))
    finally:
        if args.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def run_all(folder: Path, args: argparse.Namespace) -> int:
    (folder / "files").mkdir(parents=True, exist_ok=True)
    if not any((folder / "files").iterdir()):
        # in a process of its own: torch and a window's OpenGL do not go together everywhere
        subprocess.run(
            [sys.executable, "-m", "tests.fuzz.monkey_files", str(folder / "files")],
            check=True,
            cwd=ROOT,
        )
    first, last = args.first, args.first + args.actions
    if args.only:
        first, last = (int(number) for number in args.only.split("-"))
        last += 1
    each, sums, faults = last - first if args.only else args.each, Counter[str](), 0
    for start in range(first, last, each):
        found = one_window(folder, args.seed, start, min(start + each, last))
        print(json.dumps(found), flush=True)
        faults += len(found["faults"])
        sums.update({key: found[key] for key in ("actions", "napari_alone", "sentences")})
        sums["through_us"] += len(found["through_us"])
    print(json.dumps({"seed": args.seed, **sums, "faults": faults}))
    return int(faults > 0)


def one_window(folder: Path, seed: int, first: int, last: int) -> dict[str, Any]:
    """Run some actions in a process, and return what came of them."""
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    scratch = home / "files"
    shutil.copytree(folder / "files", scratch)  # runs write beside videos
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.monkey",
        "--seed",
        str(seed),
        "--keep",
        str(home),
        "--window",
        str(first),
        str(last),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (folder / f"log-{seed}-{first}.txt").open("w+") as log:
        status = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False, cwd=ROOT
        ).returncode
    lines = [json.loads(line) for line in read_lines(home / "journal.jsonl")]
    faults = [line["fault"] for line in lines if "fault" in line]
    done = [line for line in lines if "did" in line]
    if status or not (lines and lines[-1].get("ended")):
        where = f"after {done[-1]['n']}, {done[-1]['doing']}" if done else "at the beginning"
        faults.append(f"the process ended with {status} {where}; see {folder / f'log-{seed}-{first}.txt'}")
    return {
        "first": first,
        "actions": len(done),
        "faults": faults,
        "through_us": [line["through_us"] for line in lines if "through_us" in line],
        "napari_alone": sum("napari" in line for line in lines),
        "sentences": sum("sentence" in line for line in lines),
    }


def read_lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


# ---- the child: a window


class Journal:
    """Lines of what is done and what goes wrong, on disk before the next thing happens."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._seen: set[str] = set()
        self.number = -1

    def write(self, **line: Any) -> None:
        self._file.write(json.dumps({"n": self.number, **line}) + "\n")
        self._file.flush()

    def exception(self, error: BaseException) -> None:
        from napari_samexp.errors import SamexpError

        text = "".join(traceback.format_exception(error))
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        places = [OURS in file for file in files if OURS in file or NAPARI in file]
        if isinstance(error, SamexpError):
            self.write(sentence=str(error))
        elif places and places[-1]:
            self._once("fault", text)
        else:
            self._once("through_us" if any(places) else "napari", text)

    def qt(self, kind: Any, context: Any, message: str) -> None:
        if not NO_FAULT.search(message) and "Debug" not in str(kind) and "Info" not in str(kind):
            self._once("fault", f"Qt: {message}")

    def _once(self, kind: str, text: str) -> None:
        # the same fault a second time says nothing new
        if text not in self._seen:
            self._seen.add(text)
            self.write(**{kind: f"action {self.number}: {text}"})


def work_in_a_window(home: Path, seed: int, numbers: range) -> None:
    os.environ["TMPDIR"] = str(home)
    faulthandler.enable()
    from qtpy.QtCore import qInstallMessageHandler

    from benchmarks.feel.feel_tools import live, new_viewer

    journal = Journal(home / "journal.jsonl")
    viewer = new_viewer(home)
    viewer.window.resize(760, 560)  # software draws slowly
    qInstallMessageHandler(journal.qt)
    from tests.fuzz.monkey_actions import ACTIONS, DOCKS, Window, toggle_dock

    files = sorted(path for path in (home / "files").iterdir())
    window = Window(viewer, files, home)
    catch_exceptions(journal)
    answer_dialogs(window)
    for name in Random(f"{seed} {numbers.start} docks").sample(DOCKS, 3):
        toggle_dock(window, name)
    for journal.number in numbers:
        chance = window.chance = Random(f"{seed} {journal.number}")
        (action,) = chance.choices(list(ACTIONS), list(ACTIONS.values()))
        journal.write(doing=action.__name__)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        act(action, window, chance, journal)
    faulthandler.dump_traceback_later(2 * HANG_S, exit=True)
    viewer.close()
    live(60, lambda: not any("samexp" in thread.name for thread in threading.enumerate()))
    left = workers()
    if left:
        journal.write(fault=f"processes are left behind: {left}")
    journal.write(ended=True)
    os._exit(0)  # what Python's and the drivers' own ends do is not what is looked at


def act(action: Any, window: Any, chance: Random, journal: Journal) -> None:
    from qtpy.QtWidgets import QApplication

    from benchmarks.feel.feel_tools import live

    did, began = "", time.monotonic()
    try:
        did = action(window, chance)
        live(chance.choice((0.0, 0.0, 0.01, 0.05)))
        while (popup := QApplication.activePopupWidget()) is not None:
            popup.close()
    except Exception as error:
        journal.exception(error)
    journal.write(did=did, doing=action.__name__, seconds=round(time.monotonic() - began, 2))


def catch_exceptions(journal: Journal) -> None:
    """Have everything that nobody catches written down, wherever it is raised."""
    from napari.utils.notifications import notification_manager

    def told(notification: Any) -> None:
        if getattr(notification, "exception", None) is not None:
            journal.exception(notification.exception)

    notification_manager.notification_ready.connect(told)
    sys.excepthook = lambda kind, error, trace: journal.exception(error)
    threading.excepthook = lambda args: journal.exception(args.exc_value)
    sys.unraisablehook = lambda args: journal.exception(args.exc_value)


def answer_dialogs(window: Any) -> None:
    """Answer what would wait for a person."""
    from qtpy.QtGui import QDesktopServices
    from qtpy.QtWidgets import QDialog, QFileDialog, QInputDialog, QMenu, QMessageBox

    def path(of: Any) -> Any:
        return staticmethod(lambda *_, **__: (of() if window.chance.random() < 0.8 else "", ""))

    QFileDialog.getOpenFileName, QFileDialog.getSaveFileName = path(window.some_path), path(window.new_path)
    QInputDialog.getInt = staticmethod(lambda *_, **__: (window.chance.choice((1, 2, 65535)), True))
    QMessageBox.exec = lambda *_: window.chance.choice(
        (QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No)
    )
    QDialog.exec = lambda *_: 0
    QMenu.exec = choose_from_menu(window)
    QDesktopServices.openUrl = staticmethod(lambda url: True)


def choose_from_menu(window: Any) -> Any:
    def chosen(menu: Any, *_: Any) -> None:
        actions = [each for each in menu.actions() if each.isEnabled() and not each.menu()]
        if (
            menu.parent() is not None
            and OURS in sys.modules[type(menu.parent()).__module__].__file__
            and actions
        ):
            window.chance.choice(actions).trigger()

    return chosen


def workers() -> list[str]:
    import psutil

    children = psutil.Process().children(recursive=True)
    return [
        " ".join(each.cmdline())[:120]
        for each in children
        if "resource_tracker" not in " ".join(each.cmdline())
    ]


if __name__ == "__main__":
    main()
