"""Golden bytes of scores, containments and events as agents keep them, for ever."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from stook.audits.containment import Containment, Silence
from stook.audits.score import (
    NEWCOMER,
    Audited,
    Beat,
    Belief,
    Crime,
    DeclaredLoss,
    FarmerScore,
    Heartbeat,
    Losses,
    Muted,
    Retrieved,
    Speed,
    Transferred,
)
from stook.contracts.verdict import Verdict
from stook.errors import CorruptionError
from stook.storage.audit_records import read_event, read_score, read_silence, write_event, write_score, write_silence

KEPT = json.loads((Path(__file__).parent / "data" / "agent-records-v1.json").read_text())
SCORE = FarmerScore(
    Belief(1.5, 0.25, 10),
    Belief(0.5, 2.0, 20),
    Belief(),
    Speed(1048576.0, 3.5, 30),
    Losses(1.25, 40, 39, 0.5),
    Crime.MUTE,
    50,
)
SILENCE = Containment(Silence.CONTAINED, b"what", 1, 2, 3, 1, True, 4, 5, 6, 7)
EVENTS = [
    Audited(Verdict.LOST, 1, 2, 3),
    DeclaredLoss(4, 5),
    Muted(),
    Heartbeat(Beat.EXCUSED, 6),
    Retrieved(True),
    Transferred(7, 0.125),
]


@pytest.mark.parametrize(("name", "score"), [("score", SCORE), ("newcomer", NEWCOMER)])
def test_scores(name: str, score: FarmerScore) -> None:
    assert write_score(score).hex() == KEPT[name]
    assert read_score(bytes.fromhex(KEPT[name])) == score


def test_a_containment() -> None:
    assert write_silence(SILENCE).hex() == KEPT["silence"]
    assert read_silence(bytes.fromhex(KEPT["silence"])) == SILENCE


def test_events() -> None:
    assert [write_event(event).hex() for event in EVENTS] == KEPT["events"]
    assert [read_event(bytes.fromhex(text)) for text in KEPT["events"]] == EVENTS


@pytest.mark.parametrize("read", [read_score, read_silence, read_event])
def test_other_bytes_are_damage(read: object) -> None:
    for data in (b"", b"\x90", b"\x93\x01\x02\x03"):
        with pytest.raises(CorruptionError):
            read(data)  # type: ignore[operator]


def test_a_later_version_and_what_is_no_number_are_not_guessed_at() -> None:
    fields = msgspec.msgpack.decode(bytes.fromhex(KEPT["score"]))
    with pytest.raises(CorruptionError, match="version 2"):
        read_score(msgspec.msgpack.encode([2, *fields[1:]]))
    for odd in (float("nan"), float("inf"), -1.0):
        with pytest.raises(CorruptionError):
            read_score(msgspec.msgpack.encode([*fields[:4], odd, *fields[5:]]))
    for text in KEPT["events"]:
        kind = msgspec.msgpack.decode(bytes.fromhex(text))
        with pytest.raises(CorruptionError):
            read_event(msgspec.msgpack.encode([*kind[:3], [1, 1] if len(kind[3]) != 2 else [], kind[4]]))
    with pytest.raises(CorruptionError):
        read_event(msgspec.msgpack.encode([1, 4, 9, [1], 0.0]))
