"""The newest of the requests that are made while one is worked on."""

from __future__ import annotations

from napari_samexp.session.latest import Latest


def test_one_request_at_a_time_and_then_only_the_newest() -> None:
    started: list[str] = []
    latest = Latest(started.append)
    for request in "abcd":
        latest.request(request)
    assert started == ["a"]
    assert not latest.done()  # a newer one waits
    assert started == ["a", "d"]
    assert latest.done()
    latest.request("e")
    assert started == ["a", "d", "e"]


def test_a_request_that_waits_can_be_dropped() -> None:
    started: list[str] = []
    latest = Latest(started.append)
    latest.request("a")
    latest.request("b")
    latest.drop_pending()
    assert latest.done() and started == ["a"]


def test_work_that_ends_at_once_lets_the_next_start() -> None:
    started: list[int] = []

    def start(request: int) -> None:
        started.append(request)
        if request < 3:
            latest.request(request + 1)
        latest.done()

    latest = Latest(start)
    latest.request(0)
    assert started == [0, 1, 2, 3]
