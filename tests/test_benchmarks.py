"""What the benchmarks rest on: peers that take turns, and ratios."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.speed import gpu_speed, turns
from tests import ROOT

PEER = """
import sys
sys.path.insert(0, {folder!r})
from benchmarks.speed.turns import Stages, answer

print("Libraries talk.\\n")

class Model:
    def encode(self):
        print("Also later.")
        return sum(i * i for i in range({work}))

model, stages = Model(), Stages()
stages.watch(model, image="encode")
answer({{"frame": model.encode, "more": lambda: {{"gpu_peak": 3.0}}}}, stages)
"""


def peer(folder: Path, name: str, work: int) -> turns.Peer:
    script = folder / f"{name}.py"
    script.write_text(PEER.format(folder=str(turns.ROOT), work=work), "utf-8")
    return turns.Peer(name, sys.executable, str(script))


def test_peers_take_turns_and_ratios_are_within_a_turn(tmp_path: Path) -> None:
    peers = [peer(tmp_path, "light", 20_000), peer(tmp_path, "heavy", 2_000_000)]
    with turns.running(peers):
        rows = turns.take_turns(peers, "frame", 3, 1, quiet=True)
        assert peers[0].do("more")["gpu_peak"] == 3.0
    assert [len(figures) for figures in rows.values()] == [3, 3]
    for figures in rows["heavy"]:
        assert figures["peak"] > 1 and figures["stages"]["image"] == pytest.approx(figures["cpu"], rel=0.5)
    report = turns.show(rows, ["light"])
    assert set(report["ratios"]) == {"light / heavy, wall", "light / heavy, cpu"}
    assert turns.ratios({"a": [{"cpu": 1.0}], "b": [{"cpu": 4.0}]}, "a", "b", "cpu") == [0.25]


def test_a_peer_that_does_not_start_is_named(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit(1)", "utf-8")
    with (
        pytest.raises(SystemExit, match="broken did not start"),
        turns.running([turns.Peer("broken", sys.executable, str(script))]),
    ):
        pass


def test_peers_prepare_themselves_side_by_side_until_the_time_is_up(tmp_path: Path) -> None:
    slow, broken = tmp_path / "slow.py", tmp_path / "broken.py"
    slow.write_text("import time; time.sleep(100)", "utf-8")
    broken.write_text("print('why'); raise SystemExit(1)", "utf-8")
    log = tmp_path / "broken.log"
    peers = [
        peer(tmp_path, "light", 20_000),
        turns.Peer("slow", sys.executable, str(slow), nice=5),
        turns.Peer("broken", sys.executable, str(broken), log=log),
        peer(tmp_path, "heavy", 200_000),
    ]
    began = time.monotonic()
    done = turns.side_by_side(peers, "frame", 3, until=began + 8)
    assert time.monotonic() - began < 30
    assert [one.name for one in done] == ["light", "heavy"]
    assert [one.code for one in peers] == [None, -9, 1, None]
    assert [len(figures) for figures in done.values()] == [3, 3]
    left = list(done)
    rows = turns.take_turns(left, "frame", 2, 0, quiet=True)  # they go on
    assert set(rows) == {"light", "heavy"}
    assert set(turns.side_by_side(left, "frame", 1)) == set(left)
    for one in peers:
        one.kill()
    assert not turns.side_by_side(left, "frame", 1)  # all have ended
    for one in peers:
        one.stop()


def test_a_peer_has_its_log_and_its_environment(tmp_path: Path) -> None:
    script, log = tmp_path / "says.py", tmp_path / "says.log"
    script.write_text("import os, sys; sys.stderr.write(os.environ['WORD'])", "utf-8")
    one = turns.Peer("says", sys.executable, str(script), log=log, environment={"WORD": "hello"})
    assert not turns.side_by_side([one], "frame", 1)
    one.stop()
    assert log.read_text("utf-8") == "hello"


def test_memory_is_compared_with_and_without_the_video_that_others_keep_on_the_gpu() -> None:
    own, base = {"gpu_taken": 300.0, "rss": 9.0}, {"gpu_taken": 1000.0, "rss": 1.0, "video": 400.0}
    assert gpu_speed.share_of(own, base) == (0.3, 0.5)


def test_what_was_measured_of_a_size_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peers = [peer(tmp_path, "ours graphs", 20_000), peer(tmp_path, "meta", 200_000)]
    args = SimpleNamespace(turns=3, long=2)
    try:
        assert len(turns.side_by_side(peers, "frame", 1)) == 2
        report = gpu_speed.compare(peers, args)
    finally:
        for one in peers:
            one.stop()
    assert set(report["peers"]) == {"ours graphs", "meta"}
    assert report["peers"]["meta"]["rss later"] > 0
    assert list(report["times as fast"]) == ["ours graphs as meta"]
    assert "times as fast as meta" in capsys.readouterr().out


def test_a_report_says_where_it_comes_from(tmp_path: Path) -> None:
    turns.write(tmp_path / "new" / "r.json", "frame", report={"x": 1})
    found = json.loads((tmp_path / "new" / "r.json").read_text("utf-8"))
    assert found["report"] == {"x": 1} and found["machine"]["torch"] == torch.__version__


def test_spread_is_the_median_and_the_quartiles() -> None:
    assert turns.spread([1, 2, 3, 4, 5], 1) == "3.0 (2.0 to 4.0)"


@pytest.mark.skipif(os.name == "nt", reason="they fork and limit processes, which Windows cannot")
@pytest.mark.parametrize("folder", ["benchmarks", "tests/fuzz", "tests/kill", "tests/parity"])
def test_scripts_that_no_other_test_runs_still_find_what_they_import(folder: str) -> None:
    pytest.importorskip("qtpy")
    for path in (ROOT / folder).rglob("*.py"):
        if not path.name.startswith("test_"):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
