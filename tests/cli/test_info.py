"""``napari-samexp info`` and the help of all commands."""

import json
import re
import subprocess
import sys
from dataclasses import fields

from napari_samexp import __version__
from napari_samexp.cli.options import TrackingOptions
from napari_samexp.sam.build import new_model
from napari_samexp.sam.weights.catalogue import OFFICIAL, OfficialFile
from napari_samexp.sam.weights.hashes import sha256_of
from napari_samexp.tracking import TrackSettings
from tests.tiny_files import ENVIRONMENT, TINY


def test_help_names_every_command(shell):
    for line in ("", "--help", "-h"):
        status, out, err = shell(line)
        assert (status, err) == (0, "")
        assert all(
            re.search(rf"^  {name} ", out, re.MULTILINE) for name in ("info", "record", "track", "demo")
        )


def test_the_settings_words_are_in_the_help(shell):
    _, out, _ = shell("track --help")
    words = " ".join(out.split())
    shown = {"recent", "pointers", "store_memories", "keep_lost", "side", "square", "prior_time", "direction"}
    for field in fields(TrackSettings):
        assert (field.metadata["help"] in words) == (field.name in shown)


def test_the_defaults_are_the_settings_own():
    assert TrackingOptions().settings == TrackSettings()


def test_the_version(shell):
    assert shell("--version") == (0, f"napari-samexp {__version__}\n", "")


def test_help_needs_neither_torch_nor_a_decoder():
    script = (
        "import sys; from napari_samexp.cli import run; status = run(['track', '--help']);"
        "sys.exit(status or len({'torch', 'av', 'zarr', 'rich', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "--prior" in done.stdout


def test_threads_of_a_command_sleep_while_they_wait_unless_told_otherwise(monkeypatch):
    script = (
        "import os, sys; from napari_samexp.cli import main; sys.argv[1:] = ['--version']\n"
        "try: main()\nexcept SystemExit: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )

    def said():
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split()

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert said()[-2:] == ["PASSIVE", "False"]  # torch reads it when it is imported
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert said()[-2:] == ["ACTIVE", "False"]


def test_info_says_what_a_file_is(shell, place):
    status, out, err = shell("info tiny.safetensors --json")
    facts = json.loads(out)
    assert (status, err) == (0, "")
    assert facts["variant"] == "tiny-random" and facts["family"] == "SAM 2.1" and facts["image_size"] == 64
    assert facts["parameters"] == sum(p.numel() for p in new_model(TINY).parameters())
    assert facts["sha256"] == sha256_of(place / "tiny.safetensors")
    assert facts["memory"] and not facts["verified"] and facts["official"] is None
    text = shell("info tiny.safetensors")[1]
    assert facts["sha256"] in text and "tiny-random" in text and "no, this is not an official file" in text


def test_info_knows_an_official_file_by_its_hash(shell, place, monkeypatch):
    sha256 = sha256_of(place / "tiny.safetensors")
    monkeypatch.setitem(OFFICIAL, "known", OfficialFile("known", "known.pt", "https://there", 1, sha256))
    facts = json.loads(shell("info tiny.safetensors --json")[1])
    assert facts["verified"] and facts["official"] == "known"
    assert "yes, this is the official known" in shell("info tiny.safetensors")[1]


def test_info_on_a_name_says_what_would_come_and_downloads_nothing(shell, place):
    status, out, _ = shell("info sam2.1_hiera_tiny --json")
    facts = json.loads(out)
    assert status == 0
    assert not facts["downloaded"] and facts["bytes"] == 156_008_466 and facts["licence"] == "Apache-2.0"
    assert facts["parameters"] == 38_962_498 and facts["path"].startswith(str(place / "cache"))
    text = shell("info sam_vit_b")[1]
    assert "not downloaded" in text and "https://" in text and "cannot record" in text
    assert not (place / "cache").exists()


def test_info_on_edgetam_says_by_what_it_will_be_verified(shell):
    status, out, _ = shell("info edgetam --json")
    facts = json.loads(out)
    assert (status, facts["family"], facts["memory"], facts["parameters"]) == (0, "EdgeTAM", True, 13_895_794)
    assert facts["sha256"] is None and facts["git_blob"] == "abd54d22bbd22ba3e53cf59a307e59e0f3701be6"
    text = shell("info edgetam")[1]
    assert "git blob" in text and "https://github.com/facebookresearch/EdgeTAM/" in text
