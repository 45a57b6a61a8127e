"""What a farmer's home refuses before it invites anybody, and what it forgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

import joining_samples as samples
from stook import joining
from stook.assembly import (
    INVITES_FOLDER,
    KEY_FILE,
    MEMBERSHIP_FILE,
    SystemClock,
    create_farmer_home,
    create_renter_home,
    export_agent,
    gate_of,
    load_owner,
)
from stook.codec import encode
from stook.config import FarmSettings, NodeSettings, RentSettings, load_settings
from stook.errors import ConfigError, ConflictError, NotFoundError, UserError
from stook.identity.contact import Address, AddressKind, sign_contact
from stook.identity.invite import Invite
from stook.identity.keys import NodeKey
from stook.identity.membership import sign_membership
from stook.ids import NetworkId
from stook.joining import list_invites, make_invite, take_back
from stook.overlay.joining import RedeemReply

DAY_MS = samples.DAY_MS
OWNER = NodeKey.from_secret(b"\x0b" * 32)


def invite(home: Path, **changes: Any) -> Invite:
    values: dict[str, Any] = {
        "life_ms": DAY_MS,
        "membership_ms": DAY_MS,
        "label": "",
        "may_invite": False,
        "passphrase": None,
    }
    return make_invite(home, **(values | changes))


def made(home: Path, *, private: bool = False, **node: Any) -> Path:
    settings = msgspec.structs.replace(NodeSettings(network="grid", listen="127.0.0.1:7071"), **node)
    create_farmer_home(home, settings, FarmSettings(), private=private)
    return home


def member(home: Path, **changes: Any) -> Path:
    """A farmer of somebody else's grid."""
    made(home, owner=OWNER.node_id.hex())
    now_ms = SystemClock().now_ms()
    values: dict[str, Any] = {
        "network": NetworkId("grid"),
        "member_id": load_owner(home, None).tree().node_key().node_id,
        "now_ms": now_ms,
        "expires_ms": now_ms + DAY_MS,
    }
    (home / MEMBERSHIP_FILE).write_bytes(encode(sign_membership(OWNER, **(values | changes))))
    return home


def test_a_founder_owns_its_grid_and_invites_to_it(tmp_path: Path) -> None:
    home = made(tmp_path / "home", private=True)
    own_id = load_owner(home, None).tree().node_key().node_id
    node = load_settings(home).node
    assert (node.owner, node.max_nodes_per_network) == (own_id.hex(), 0)
    code = invite(home, label="Ann", may_invite=True)
    assert code.owner_id == code.issuer_id == own_id
    (kept,) = list_invites(home)
    assert (kept.invite.label, kept.invite.may_invite) == ("Ann", True)
    assert kept.state(0) == "open"
    assert kept.state(code.expires_ms) == "expired"
    for file in (home / INVITES_FOLDER).iterdir():
        assert code.secret not in file.read_bytes()


def test_in_an_open_network_an_invite_only_shows_the_way(tmp_path: Path) -> None:
    home = made(tmp_path / "home", advertise=("farm.example.org:7071",))
    code = invite(home, may_invite=True)
    assert code.owner_id == b""
    assert code.addresses == (Address(AddressKind.DIRECT, "farm.example.org", 7071),)
    assert not list_invites(home)[0].invite.may_invite


def test_what_cannot_be_is_said_before_anything_is_kept(tmp_path: Path) -> None:
    home = made(tmp_path / "home", private=True)
    for changes in (
        {"life_ms": 0},
        {"life_ms": joining.MAX_INVITE_LIFE_MS + 1},
        {"membership_ms": joining.MAX_MEMBERSHIP_LIFE_MS + 1},
        {"label": "x" * 65},
    ):
        with pytest.raises(UserError):
            invite(home, **changes)
    with pytest.raises(ConfigError, match="advertise"):
        invite(made(tmp_path / "everywhere", listen="0.0.0.0:7071"))
    assert list_invites(home) == []


def test_only_members_who_may_invite_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="may not invite"):
        invite(member(tmp_path / "plain"))
    with pytest.raises(ConfigError, match="may not invite"):
        invite(made(tmp_path / "stranger", owner=OWNER.node_id.hex()))
    now_ms = SystemClock().now_ms()
    with pytest.raises(ConfigError, match="over"):
        invite(member(tmp_path / "late", may_invite=True, expires_ms=now_ms))
    home = member(tmp_path / "inviter", may_invite=True)
    assert invite(home).owner_id == OWNER.node_id
    with pytest.raises(ConfigError, match="only the owner"):
        invite(home, may_invite=True)
    (home / MEMBERSHIP_FILE).write_bytes(b"\x00")
    with pytest.raises(ConfigError, match="holds no membership"):
        invite(home)


def test_taking_back_is_for_open_ones_named_so_that_one_is_meant(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    first, second = invite(home), invite(home)
    with pytest.raises(UserError, match="2 invites"):
        take_back(home, "")
    with pytest.raises(NotFoundError):
        take_back(home, "zz")
    take_back(home, first.invite_id.hex())
    with pytest.raises(ConflictError):
        take_back(home, first.invite_id.hex().upper())
    assert {one.invite.invite_id: one.state(0) for one in list_invites(home)} == {
        first.invite_id: "taken back",
        second.invite_id: "open",
    }


def test_a_month_after_its_end_an_invite_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = made(tmp_path / "home")
    old = invite(home)
    take_back(home, old.invite_id.hex())
    monkeypatch.setattr(joining, "KEPT_AFTER_END_MS", -2 * DAY_MS)
    new = invite(home)
    assert [one.invite.invite_id for one in list_invites(home)] == [new.invite_id]
    assert len(list((home / INVITES_FOLDER).iterdir())) == 1
    assert (home / KEY_FILE).exists()


def test_an_exported_agent_belongs_to_the_grid_too(tmp_path: Path) -> None:
    home, target = tmp_path / "renter", tmp_path / "agent"
    create_renter_home(home, NodeSettings(network="grid", owner=OWNER.node_id.hex()), RentSettings())
    shown = encode(samples.membership(OWNER, network=NetworkId("grid")))
    (home / MEMBERSHIP_FILE).write_bytes(shown)
    export_agent(home, target, passphrase=None, new_passphrase=None)
    gate = gate_of(target, load_settings(target).node)
    assert gate is not None
    assert gate.shown == shown


def test_seeds_that_no_setting_may_hold_are_passed_over() -> None:
    """Or a hostile issuer could let a join fail after it was counted."""
    hosts = ("farm.example.org", "a:b", "-")
    contacts = tuple(
        sign_contact(
            NodeKey.from_secret(bytes([40 + number]) * 32),
            network=NetworkId("grid"),
            addresses=[Address(AddressKind.DIRECT, host, 7071)],
            sequence=1,
            issued_ms=1,
        )
        for number, host in enumerate(hosts)
    )
    seeds = joining._seeds(samples.invite(), RedeemReply(None, contacts))
    assert [seed.split("/")[2] for seed in seeds] == ["farm.example.org:7071", "farm.example.org:7071", "-:7071"]
