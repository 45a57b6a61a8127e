"""The pages about joining say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from stook.codec import Record
from stook.contracts.messages import Method
from stook.errors import ReasonCode
from stook.identity import invite
from stook.identity.invite import (
    CHECK_BYTES,
    MAX_CODE_CHARS,
    MAX_INVITE_ADDRESSES,
    MAX_LABEL_CHARS,
    PREFIX,
    Invite,
    KeptInvite,
    Redemption,
)
from stook.identity.membership import MAX_ISSUER_BYTES, MAX_MEMBERSHIP_BYTES, Membership, SignedMembership
from stook.overlay import beacon, joining
from stook.overlay.beacon import Beacon, SignedBeacon
from stook.overlay.joining import MAX_SEEDS_TOLD, JoinMethod
from stook.overlay.messages import OverlayMethod
from stook.renter.roster import _STAND_INS
from stook.storage.invite_store import MAX_INVITES
from stook.wire import lan

DOCS = Path(__file__).parents[2] / "docs"
JOINING, INVITE, BEACON = (
    (DOCS / page).read_text() for page in ("protocol/joining.md", "formats/invite.md", "formats/beacon.md")
)
FLAT = re.sub(r"\s+", " ", JOINING)


def rows(text: str) -> list[tuple[int, str]]:
    return [(int(number), name) for number, name in re.findall(r"^\| (\d+) \| `(\w+)`", text, re.M)]


def fields(kind: type[Record]) -> list[tuple[int, str]]:
    return list(enumerate(kind.__struct_fields__))


def listed(kind: type[Record]) -> str:
    return f"`[{', '.join(kind.__struct_fields__)}]`"


def test_format_pages_list_the_fields_in_order() -> None:
    assert rows(INVITE) == fields(Membership) + fields(Invite)
    assert rows(BEACON) == fields(Beacon)
    for kind in (SignedMembership, KeptInvite, Redemption):
        assert listed(kind) in INVITE, kind
    assert listed(SignedBeacon) in BEACON


def test_the_method_has_a_section_and_a_row() -> None:
    assert re.findall(r"^## ([A-Z_]+)$", JOINING, re.M) == list(JoinMethod)
    assert re.findall(r"^\| ([A-Z_]+) \|", JOINING, re.M) == list(JoinMethod)
    for word in ("Request", "Reply", "Again:", "Durable"):
        assert word in JOINING, word


def test_every_message_is_shown_with_its_fields_in_order() -> None:
    shown = dict(re.findall(r"`(\w+) \[([\w, ]*)\]`", FLAT))
    defined = {
        name: ", ".join(kind.__struct_fields__)
        for name, kind in vars(joining).items()
        if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == joining.__name__
    }
    assert shown == defined


def test_numbers_in_the_pages_are_those_of_the_code() -> None:
    assert f"of at most {MAX_SEEDS_TOLD}\n  farmers" in JOINING
    assert f"{_STAND_INS} farmers that it knows" in JOINING
    assert f"at most {MAX_MEMBERSHIP_BYTES} bytes" in INVITE
    assert f"at most {MAX_ISSUER_BYTES} bytes" in INVITE
    assert f"`{PREFIX}`" in INVITE
    assert f"the first {CHECK_BYTES} bytes of the" in INVITE
    assert f"At most {MAX_CODE_CHARS:,} characters" in INVITE
    assert f"1 to {MAX_INVITE_ADDRESSES} addresses" in INVITE
    assert f"At most {MAX_INVITES:,} invites" in INVITE
    assert f"at most {MAX_LABEL_CHARS} characters" in INVITE
    assert f"the first {invite.INVITE_ID_BYTES} bytes" in INVITE
    assert f"group `{lan.GROUP}`, port {lan.PORT}" in BEACON
    assert f"at most {beacon.MAX_BEACON_BYTES} bytes" in BEACON
    assert (
        f"more than {beacon.MAX_PER_SOURCE} datagrams of one source address in 10 s, or {beacon.MAX_PER_WINDOW}"
        in BEACON
    )
    assert f"one every {beacon.BEACON_SECONDS:g} s" in BEACON
    assert f"At most {beacon.MAX_NEIGHBOURS}\nneighbours are remembered, for 10 minutes" in BEACON
    assert (beacon.WINDOW_MS, beacon.NEIGHBOUR_LIFE_MS) == (10_000, 600_000)


def test_every_code_named_exists() -> None:
    others = {*JoinMethod, *Method, *OverlayMethod, "STATUS", "DIRECT", "RFC", "UDP", "TCP", "IPv"}
    for page in (JOINING, INVITE, BEACON):
        words = set(re.findall(r"\b[A-Z][A-Z_]{3,}\b", page)) - others
        assert words <= set(ReasonCode.__members__), words


def test_every_page_and_vector_named_exists() -> None:
    for folder, text in (("protocol", JOINING), ("formats", INVITE), ("formats", BEACON)):
        for page in re.findall(r"`((?:\.\./)?[\w/-]+\.md)`", text):
            assert (DOCS / folder / page).resolve().is_file(), page
        for vector in re.findall(r"`(tests/vectors/data/[\w-]+\.json)`", text):
            assert (DOCS.parent / vector).is_file(), vector
