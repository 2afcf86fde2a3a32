"""Progress, Ctrl-C, exit statuses and faults."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from napari_samexp.cli import main, run
from napari_samexp.cli import progress as progress_module
from napari_samexp.io.labels import LabelStore
from napari_samexp.render.mp4 import write_mp4
from tests.tiny_files import COMMAND, ENVIRONMENT, RECORD, TRACK, disc_frames, labels_of


def test_without_a_terminal_progress_is_plain_lines(shell, monkeypatch):
    monkeypatch.setattr(progress_module, "LINE_EVERY", 0.0)
    _, _, err = shell(f"{TRACK} --overlay o.mp4")
    assert re.search(r"^clip\.mp4: 3/10, \S+ frames/s, 0:00:\d\d left$", err, re.MULTILINE)
    assert "o.mp4: 9/10" in err
    assert shell(f"{TRACK} --overwrite --json")[2] == ""


def test_downloads_are_shown_in_megabytes(capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "LINE_EVERY", 0.0)
    with progress_module.progress("Downloading x", "bytes", quiet=False) as update:
        update(0, None)
        update(5_000_000, 20_000_000)
        update(6_000_000, None)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Downloading x: 5/20 MB, ") and first.endswith(" left")
    assert second.startswith("Downloading x: 6 MB, ") and "MB/s" in second


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self):
        return True


def test_on_a_terminal_progress_is_a_bar_that_goes_away(shell, monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stderr", terminal)
    status, out, _ = shell(f"{TRACK} --overlay o.mp4")
    shown = terminal.getvalue()
    assert status == 0 and out.startswith("10 frames tracked")
    assert re.search(r"clip\.mp4 .*10/10", shown) and " left" in shown
    assert re.search(r"o\.mp4 .*9/10", shown)
    assert shown.endswith("\x1b[2K")  # the line is cleared


def test_ctrl_c_keeps_all_finished_frames_and_resume_equals_one_run(place):
    long = place / "long.mp4"
    write_mp4(long, disc_frames(24).repeat(50, axis=0), 10)
    line = TRACK.replace("clip.mp4", "long.mp4").split()
    process = subprocess.Popen(
        [*COMMAND, *line], cwd=place, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    journal = place / "labels.zarr" / "scores.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    kept = int(
        re.fullmatch(r"(?:long.*\n)*napari-samexp: Stopped: (\d+) of 1200 .*--resume goes on\.\n", err)[1]
    )
    with LabelStore.open(place / "labels.zarr") as store:  # nobody holds it any more
        assert store.done.sum() == kept >= 3
    until = f"0:{kept + 3}"
    assert run([*line, "--frames", until, "--resume", "--json"]) == 0
    assert run([*line, "--frames", until, "--out", "whole.zarr", "--json"]) == 0
    stopped, whole = labels_of("labels.zarr"), labels_of("whole.zarr")
    assert (stopped[0] == whole[0]).all() and (stopped[1] == whole[1]).all()


def test_ctrl_c_waits_for_the_frame_under_way(shell, place, monkeypatch):
    write = LabelStore.write

    def pressed(store, result):
        if result.index == 2:
            signal.raise_signal(signal.SIGINT)
        write(store, result)

    monkeypatch.setattr(LabelStore, "write", pressed)
    status, out, err = shell(f"{TRACK} --scores s.csv")
    assert (status, out) == (130, "")
    assert "Stopped: 3 of 10 frames are in" in err
    assert not (place / "s.csv").exists()


def test_ctrl_c_anywhere_else_is_a_word_and_130(shell, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_samexp.cli.info.locate", interrupted)
    assert shell("info starter") == (130, "", "napari-samexp: Stopped.\n")


def test_ctrl_c_while_the_overlay_is_written_keeps_the_labels(shell, place, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_samexp.render.overlay.write_overlay", interrupted)
    status, out, err = shell(f"{TRACK} --overlay o.mp4")
    assert (status, out) == (130, "")
    assert "10 of 10 frames" in err
    assert labels_of(place / "labels.zarr")[1].all()


def test_the_second_ctrl_c_stops_at_once_and_the_handler_goes_away():
    before = signal.getsignal(signal.SIGINT)
    with progress_module.interruptible() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_thread_can_track_too():
    seen = []

    def track():
        with progress_module.interruptible() as interrupt:
            seen.append(interrupt.requested)

    thread = threading.Thread(target=track)
    thread.start()
    thread.join()
    assert seen == [False]


def test_the_entry_point_exits_with_the_status(shell, monkeypatch):
    for line, status in (("--version", 0), ("info none.pt", 2)):
        monkeypatch.setattr(sys, "argv", ["napari-samexp", *line.split()])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == status


def test_a_process_exits_with_two_and_one_sentence(place):
    done = subprocess.run(
        [*COMMAND, "info", "none.pt"], capture_output=True, text=True, env=ENVIRONMENT, cwd=place
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_reader_that_goes_away_is_no_reason_to_complain(place):
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [*COMMAND, "--help"], stdout=theirs, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("line", ["--debug info none.pt", "info none.pt --debug", "info --debug none.pt"])
def test_debug_shows_the_traceback_before_the_sentence(shell, line):
    status, out, err = shell(line)
    assert (status, out) == (2, "")
    assert "Traceback" in err and "CheckpointError" in err
    assert err.splitlines()[-1].startswith("napari-samexp: ")


def test_debug_behind_two_dashes_is_a_name(shell):
    status, _, err = shell("info -- --debug")
    assert status == 2
    assert "'--debug'" in err and "Traceback" not in err


def test_a_fault_of_our_own_is_a_sentence_too(shell, monkeypatch):
    def broken(path):
        raise RuntimeError("this\nis odd")

    monkeypatch.setattr("napari_samexp.cli.info.locate", broken)
    status, out, err = shell("info starter")
    assert (status, out) == (1, "")
    sentence = "RuntimeError: this is odd; this is a fault of napari-samexp, which --debug shows in full."
    assert err == f"napari-samexp: {sentence}\n"


def test_names_cannot_command_the_terminal(place, capsys):
    name = "c\x1b[2Jat\nx"
    assert run([*RECORD.split(), "--point", "15,24", "--name", name]) == 0
    assert run([*TRACK.replace("prior.", "new.").split(), "--frames", ":1"]) == 0
    assert run(["info", "no\x1b[2J.pt"]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "c [2Jat x" in out
