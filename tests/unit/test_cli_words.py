"""What commands understand and what they say, without any network."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stook.audits.containment import Containment, Silence
from stook.audits.score import Audited, Beat, Entry, Heartbeat, explain
from stook.cli.cmd_buckets import bucket_name
from stook.cli.cmd_cat import parse_range
from stook.cli.cmd_farmers import _print_facts, facts_as_dictionary
from stook.cli.cmd_init import words_in_columns
from stook.cli.cmd_put import fullness
from stook.cli.cmd_stat import health, health_of
from stook.cli.cmd_status import may_be_lost, reason, verdict
from stook.cli.copied import Copied
from stook.cli.output import human_duration, human_rate, human_size, plural
from stook.cli.placing import WORDS, words
from stook.cli.remote import RemoteName
from stook.cli.renting import Settled
from stook.contracts.verdict import Verdict
from stook.errors import UserError
from stook.ids import NodeId
from stook.renter.client import SegmentStat
from stook.renter.farmer_record import FarmerRecord
from stook.renter.planner import Reason
from stook.shards.geometry import Policy
from stook.storage.agent_audit_ports import Dossier
from stook.storage.renter_ports import PlacementState


@pytest.mark.parametrize(
    ("text", "bucket", "name"),
    [
        ("photos", "photos", ""),
        ("photos/", "photos", ""),
        ("photos/a/b", "photos", "a/b"),
        ("stook:photos/a", "photos", "a"),
        ("photos//a", "photos", "/a"),
        ("photos/stook:x", "photos", "stook:x"),
    ],
)
def test_remote_names(text: str, bucket: str, name: str) -> None:
    assert RemoteName.parse(text) == RemoteName(bucket, name)


def test_remote_names_that_are_none() -> None:
    for text in ("", "/", "/a", "stook:", "stook:/a"):
        with pytest.raises(UserError, match="names no bucket"):
            RemoteName.parse(text)
    with pytest.raises(UserError, match="a bucket, not an object"):
        RemoteName.parse_object("photos/")


def test_bucket_names_as_typed() -> None:
    assert [bucket_name(text) for text in ("a", "a/", "stook:a", "stook:a/")] == ["a"] * 4


@pytest.mark.parametrize(
    ("text", "span"), [("0:10", (0, 10)), ("5:", (5, None)), (":7", (0, 7)), (":", (0, None)), ("3:3", (3, 3))]
)
def test_ranges(text: str, span: tuple[int, int | None]) -> None:
    assert parse_range(text) == span


@pytest.mark.parametrize("text", ["", "5", "a:b", "-1:5", "1:-2", "5:4", "1:2:3", "٣:٤", "1 : 2", "9" * 30 + ":"])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(UserError):
        parse_range(text)


def test_the_words_stand_in_numbered_columns() -> None:
    lines = words_in_columns(" ".join(f"w{number}" for number in range(1, 25))).splitlines()
    assert len(lines) == 6
    assert lines[0].split() == ["1", "w1", "7", "w7", "13", "w13", "19", "w19"]
    assert lines[5].split() == ["6", "w6", "12", "w12", "18", "w18", "24", "w24"]


@pytest.mark.parametrize(("stored", "word"), [(1, "unreadable"), (2, "endangered"), (4, "sound"), (5, "whole")])
def test_health_of_a_segment(stored: int, word: str) -> None:
    assert health(SegmentStat(b"", 2, 3, 5, stored)) == word


def test_an_object_is_as_healthy_as_its_worst_segment() -> None:
    segments = tuple(SegmentStat(b"", 2, 3, 5, stored) for stored in (5, 2, 4))
    assert health_of(segments) == "endangered"
    assert health_of(()) == "whole"


def test_fullness_in_words() -> None:
    def told(*stored: int, n: int = 5, size: int = 0) -> str:
        segments = tuple(SegmentStat(b"", 1, 1, n, count) for count in stored)
        return fullness(SimpleNamespace(segments=segments, size_bytes=size))  # type: ignore[arg-type]

    assert "empty" in told()
    assert "kept in the catalog itself" in told(size=5)
    assert told(1, n=1) == "the one segment has its one shard"
    assert told(5, 5) == "each of its 2 segments has all 5 shards"
    assert told(5, 4, 3) == "1 of 3 segments have all 5 shards; `stook agent run` fills the rest"


def test_what_may_be_lost() -> None:
    assert may_be_lost(Policy.of(1, 1), "strict").startswith("No farmer may be lost")
    assert "2 of a segment's 5 shards bring it back, so 3 farmers may be lost" in may_be_lost(Policy.of(2, 5), "strict")
    assert "more than 3 shards of a segment" in may_be_lost(Policy.of(4, 10), "strict")
    assert "lost together" in may_be_lost(Policy.of(2, 5), "farmers")


def test_why_a_policy_is_in_force() -> None:
    policy = Policy.of(4, 8)
    assert reason(policy, "4/8", 9, 9, "strict") == "set by `code` in config.toml"
    assert "8 independent farmers are needed and 3 known" in reason(policy, "4/8", 9, 3, "strict")
    assert reason(policy, "", 12, 10, "strict").startswith("chosen for 12 farmers in 10 independent groups")
    assert reason(policy, "", 10, 10, "farmers") == "chosen for 10 farmers that answered lately"


@pytest.mark.parametrize(
    ("objects", "segments", "unknown", "below_n", "below_r", "unreadable", "said"),
    [
        (0, 0, 0, 0, 0, 0, "nothing is stored"),
        (9, 5, 0, 0, 0, 0, "every segment has all"),
        (9, 5, 0, 2, 0, 0, "some shards are missing"),
        (9, 5, 0, 2, 1, 0, "1 segment should be filled"),
        (9, 5, 0, 2, 2, 2, "2 segments cannot be read"),
        (9, 0, 5, 0, 0, 0, "stook agent sync"),
        (9, 5, 1, 0, 0, 2, "knows nothing of 1 segment"),
        (0, 5, 0, 0, 0, 0, "no object here names"),
    ],
)
def test_the_verdict_names_the_gravest(
    objects: int, segments: int, unknown: int, below_n: int, below_r: int, unreadable: int, said: str
) -> None:
    status = {
        "objects": objects,
        "segments": segments,
        "segments_unknown": unknown,
        "segments_below_n": below_n,
        "segments_below_r": below_r,
        "segments_unreadable": unreadable,
    }
    assert said in verdict(status)


def test_settled_in_words() -> None:
    assert Settled(1, 0).words() == "Everything stored: 1 segment, each with all its shards."
    assert "3 of them short" in Settled(9, 3).words()


def test_every_reason_of_the_planner_has_words() -> None:
    assert set(WORDS) == {reason.name for reason in Reason}
    assert all(words(reason) for reason in Reason)


def test_the_exit_code_is_that_of_the_gravest_failure() -> None:
    copied = Copied()
    assert copied.exit_code == 0
    copied.passed.fail("a", "why")
    assert copied.exit_code == 5
    copied.unreadable.append(("b", "why"))
    assert copied.exit_code == 7
    assert copied.as_dictionary()["failed"] == [{"name": "b", "why": "why"}, {"name": "a", "why": "why"}]


def test_numbers_for_people() -> None:
    assert [human_size(size) for size in (0, 1023, 1024, 1536, 10**6, 1023 * 1024, 1 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "977 KiB",
        "1023 KiB",
        "1.0 TiB",
    ]
    assert [human_duration(seconds) for seconds in (0.04, 59.9, 61, 3700, 90_000)] == [
        "0.0 s",
        "59.9 s",
        "1 min 1 s",
        "1 h 1 min",
        "1 d 1 h",
    ]
    assert human_rate(12_345_678) == "12.3 MB/s"
    assert (plural(1, "shard"), plural(1200, "shard")) == ("1 shard", "1,200 shards")


def test_a_farmers_page_tells_what_moved_its_scores(capsys: pytest.CaptureFixture[str]) -> None:
    now = 1_700_000_000_000
    history = [Entry(now - 9_000, Heartbeat(Beat.ANSWERED)), Entry(now - 8_000, Audited(Verdict.PASSED))]
    history += [Entry(now - 7_000, Audited(Verdict.PASSED)), Entry(now - 6_000, Audited(Verdict.FAILED))]
    explanation = explain(history)
    silence = Containment(Silence.CONDEMNED, since_ms=now - 6_000)
    dossier = Dossier(NodeId(b"\xab" * 20), explanation.score, silence=silence)
    facts = FarmerRecord(dossier, explanation, {PlacementState.LOST: 2}, 0, 0, 1, ())
    _print_facts(facts, now)
    told = capsys.readouterr().out
    assert told.startswith("ab" * 20)
    assert "condemned since 2023-11-14 22:13: false proof" in told
    assert "shards: 2 lost" in told
    assert "audit passed, 2 times since" in told
    assert "audit answered with a false proof: condemned" in told
    row = facts_as_dictionary(facts, now)
    assert (row["crime"], row["silence"]["state"], row["shards"]) == ("false proof", "condemned", {"lost": 2})
    assert [move["times"] for move in row["movements"] if move["score"] == "audit"] == [2, 1]
