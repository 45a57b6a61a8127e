"""Who uploads from a home besides us: one suite over both adapters, and what only locks between processes can show."""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from stook.errors import EnvironmentFault
from stook.storage import presence
from stook.storage.presence import FilePresence, MemoryPresence, Presence

PROCESSES = multiprocessing.get_context("forkserver")


@pytest.fixture(params=["file", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Presence:
    return FilePresence(tmp_path / "uploads.lock") if request.param == "file" else MemoryPresence()


def test_the_first_is_alone_and_those_who_follow_are_not(home: Presence) -> None:
    first, second = home.stay(), home.stay()
    assert first.enter()
    first.share()
    assert not second.enter()
    first.leave()
    third = home.stay()
    assert not third.enter(), "the second is still there"
    second.leave()
    third.leave()
    fourth = home.stay()
    assert fourth.enter()
    fourth.leave()


def test_leaving_is_idempotent_and_harmless_before_entering(home: Presence) -> None:
    stay = home.stay()
    stay.leave()
    assert stay.enter()
    stay.leave()
    stay.leave()
    again = home.stay()
    assert again.enter()
    again.leave()


def test_newcomers_wait_while_somebody_clears_up(tmp_path: Path) -> None:
    home = FilePresence(tmp_path / "uploads.lock")
    first, second = home.stay(), home.stay()
    assert first.enter()
    answers: list[bool] = []
    newcomer = threading.Thread(target=lambda: answers.append(second.enter()))
    newcomer.start()
    newcomer.join(0.1)
    assert not answers
    first.share()
    newcomer.join(30)
    assert answers == [False]
    first.leave()
    second.leave()


def test_waiting_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "WAIT_SECONDS", 0.0)
    home = FilePresence(tmp_path / "uploads.lock")
    first, second = home.stay(), home.stay()
    assert first.enter()
    with pytest.raises(EnvironmentFault, match="another process"):
        second.enter()
    second.leave()
    first.leave()


def test_a_home_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="No such file"):
        FilePresence(tmp_path / "gone" / "uploads.lock").stay().enter()


def _stay_for_ever(path: Path, pipe: Connection) -> None:
    stay = FilePresence(path).stay()
    pipe.send(stay.enter())
    stay.share()
    pipe.send("in")
    pipe.recv()


def test_who_is_killed_is_gone(tmp_path: Path) -> None:
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_stay_for_ever, args=(tmp_path / "uploads.lock", theirs))
    process.start()
    theirs.close()
    assert (ours.recv(), ours.recv()) == (True, "in")
    home = FilePresence(tmp_path / "uploads.lock")
    beside = home.stay()
    assert not beside.enter()
    beside.leave()
    process.kill()
    process.join()
    process.close()
    ours.close()
    after = home.stay()
    assert after.enter()
    after.leave()
