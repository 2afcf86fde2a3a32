"""Addresses as they are shown and stored: without login, query and fragment."""

from __future__ import annotations

import json

import pytest

from napari_samexp._urls import redacted, redacted_url
from napari_samexp.batch.jobs import Job, JobResult, job_key
from napari_samexp.engine.errors import as_samexp_error
from napari_samexp.engine.worker import _trace
from napari_samexp.errors import SamexpError, VideoError
from napari_samexp.io.video import open_video
from napari_samexp.session.preferences import Preferences

HASH = "#sha256=" + "0a" * 32
SECRETS = [
    ("https://host/f.pt?X-Amz-Signature=SECRET&X-Amz-Credential=SECRET", "https://host/f.pt"),
    (f"https://host/f.pt?sig=SECRET{HASH}", f"https://host/f.pt{HASH}"),
    (f"https://SECRET:SECRET@host:8443/f.pt{HASH}", f"https://host:8443/f.pt{HASH}"),
    ("https://SECRET@host/f.pt#SECRET", "https://host/f.pt"),
    ("https://name:SEC/RET?SE#CRET@host/f.pt", "https://host/f.pt"),
    ("https://name:SEC@RET@host/f.pt", "https://host/f.pt"),
    ("HTTPS://SECRET@[::1]:80/f.pt?SECRET", "HTTPS://[::1]:80/f.pt"),
    ("rtsp://admin:SECRET@camera/stream", "rtsp://camera/stream"),
    ("s3://SECRET:SECRET@bucket/f.pt", "s3://bucket/f.pt"),
    ("https:/SECRET:SECRET@host/v.mp4?SECRET", "https:/host/v.mp4"),  # as pathlib makes it
    ("https:\\SECRET:SECRET@host\\v.mp4?SECRET", "https:\\host\\v.mp4"),  # and on Windows
]
PLAIN = [
    "starter", "sam2.1_hiera_tiny", "a/b#c?d@e.pt", "C:\\a\\b#c.pt", "/tmp/x?y.mp4", "", "https://host/@scope/f.pt",
    "https://host:80/f.pt", "tcp://10.0.0.1:8786",
]  # fmt: skip


@pytest.mark.parametrize("url, shown", SECRETS)
def test_what_gives_access_is_left_out(url: str, shown: str) -> None:
    assert redacted_url(url) == shown == redacted_url(shown)
    assert redacted(f"'{url}' was refused (see {url}).").startswith(f"'{shown}' was refused (see {shown}")
    assert "SEC" not in redacted(f"{url} {url}\n{url}")


@pytest.mark.parametrize("name", PLAIN)
def test_other_names_and_addresses_stay(name: str) -> None:
    assert redacted_url(name) == name
    assert redacted(f"There is no file {name!r}; give {name}.") == f"There is no file {name!r}; give {name}."


@pytest.mark.parametrize("url, shown", SECRETS)
def test_no_error_and_no_trace_shows_them(url: str, shown: str) -> None:
    assert str(SamexpError(f"{url} is not there.")) == f"{shown} is not there."
    error = ValueError(f"no such thing: {url}")
    for said in (
        str(as_samexp_error(error)),
        _trace(error),
        JobResult("a", "failed", error=str(error)).error,
    ):
        assert shown in said and "SEC" not in said
    with pytest.raises(VideoError) as refused:
        open_video(url)
    assert "SEC" not in str(refused.value)


@pytest.mark.parametrize("url, shown", SECRETS)
def test_settings_do_not_keep_them(url: str, shown: str) -> None:
    text = Preferences(model=url).to_json()
    assert "SEC" not in text
    assert json.loads(text)["model"] == Preferences.from_json(text).model == shown


def test_a_job_is_the_same_with_another_signature(tmp_path) -> None:
    def key(model: str) -> str:
        return job_key(Job("a", str(tmp_path), str(tmp_path), "", model))

    first, second = (f"https://host/f.pt?sig={number}{HASH}" for number in "12")
    assert key(first) == key(second) == key(redacted_url(first)) != key(first.replace("0a", "0b"))


def test_long_text_takes_no_time_to_look_through() -> None:
    for text in (
        "a.a." * 20000,
        "https://" * 20000,
        "https://" + "a:" * 20000,
        "https://" + "#sha256=" * 20000,
    ):
        assert len(redacted(text)) <= len(text) and len(redacted_url(text)) <= len(text)
