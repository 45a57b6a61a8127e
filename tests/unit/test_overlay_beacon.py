"""Beacons: which are heard, and how little a flooder gets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joining_samples import MEMBER, NETWORK, NOW_MS, OWNER, STRANGER
from stook.codec import decode, encode
from stook.identity.contact import Address, AddressKind
from stook.identity.keys import NodeKey
from stook.ids import NetworkId
from stook.overlay.beacon import (
    MAX_BEACON_BYTES,
    MAX_NEIGHBOURS,
    MAX_PER_SOURCE,
    MAX_PER_WINDOW,
    NEIGHBOUR_LIFE_MS,
    WINDOW_MS,
    Neighbourhood,
    SignedBeacon,
    sign_beacon,
)


def datagram(key: NodeKey = MEMBER, **changes: Any) -> bytes:
    values: dict[str, Any] = {"network": NETWORK, "port": 7071, "asks": False, "now_ms": NOW_MS}
    return sign_beacon(key, **(values | changes))


@pytest.fixture
def around() -> Neighbourhood:
    return Neighbourhood(NETWORK, OWNER.node_id)


def test_a_neighbour_is_called_where_the_datagram_came_from(around: Neighbourhood) -> None:
    heard = around.hear(datagram(asks=True), "192.0.2.7", now_ms=NOW_MS)
    assert heard is not None
    assert heard.neighbour is not None
    assert heard.neighbour.address == Address(AddressKind.DIRECT, "192.0.2.7", 7071)
    assert heard.is_new
    assert heard.answer
    again = around.hear(datagram(), "192.0.2.7", now_ms=NOW_MS)
    assert again is not None
    assert not again.is_new
    repeated = around.hear(datagram(), "192.0.2.8", now_ms=NOW_MS + WINDOW_MS - 1)
    assert repeated is not None
    assert not repeated.is_new
    assert [one.address.host for one in around.neighbours(now_ms=NOW_MS)] == ["192.0.2.7"]
    moved = around.hear(datagram(), "192.0.2.8", now_ms=NOW_MS + WINDOW_MS)
    assert moved is not None
    assert moved.is_new
    assert [one.address.host for one in around.neighbours(now_ms=NOW_MS)] == ["192.0.2.8"]


def test_who_does_not_serve_is_answered_and_not_remembered(around: Neighbourhood) -> None:
    heard = around.hear(datagram(port=0, asks=True), "192.0.2.7", now_ms=NOW_MS)
    assert heard is not None
    assert heard.neighbour is None
    assert heard.answer
    assert around.neighbours(now_ms=NOW_MS) == ()


def forged() -> bytes:
    signed = decode(SignedBeacon, datagram())
    return encode(SignedBeacon(msgspec.structs.replace(signed.beacon, port=1), signed.signature))


def of_later_version() -> bytes:
    beacon = msgspec.structs.replace(decode(SignedBeacon, datagram()).beacon, version=2)
    return encode(SignedBeacon(beacon, MEMBER.sign(beacon.digest)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1" * 40,
        datagram() + b"\0",
        bytes(MAX_BEACON_BYTES + 1),
        datagram(network=NetworkId("other")),
        datagram(OWNER),
        datagram(now_ms=NOW_MS - 300_001),
        datagram(now_ms=NOW_MS + 300_001),
        forged(),
        of_later_version(),
    ],
)
def test_everything_else_is_ignored(around: Neighbourhood, data: bytes) -> None:
    assert around.hear(data, "192.0.2.7", now_ms=NOW_MS) is None
    assert around.neighbours(now_ms=NOW_MS) == ()


@given(st.binary(max_size=300))
def test_no_bytes_are_an_error(data: bytes) -> None:
    assert Neighbourhood(NETWORK, OWNER.node_id).hear(data, "192.0.2.7", now_ms=NOW_MS) is None


def test_a_flooder_is_heard_for_a_while_and_others_still_are(around: Neighbourhood) -> None:
    flood = [around.hear(datagram(), "192.0.2.66", now_ms=NOW_MS) for _ in range(MAX_PER_SOURCE + 5)]
    assert sum(heard is not None for heard in flood) == MAX_PER_SOURCE
    assert around.hear(datagram(STRANGER), "192.0.2.7", now_ms=NOW_MS) is not None
    many = [around.hear(datagram(), f"198.51.100.{number}", now_ms=NOW_MS) for number in range(MAX_PER_WINDOW)]
    assert sum(heard is not None for heard in many) == MAX_PER_WINDOW - MAX_PER_SOURCE - 1
    assert around.hear(datagram(), "192.0.2.66", now_ms=NOW_MS + WINDOW_MS) is not None


def test_those_heard_first_stay_until_they_are_silent(around: Neighbourhood) -> None:
    keys = [NodeKey.from_secret((1000 + number).to_bytes(32, "big")) for number in range(MAX_NEIGHBOURS + 1)]
    for number, key in enumerate(keys):
        around.hear(datagram(key), f"198.51.100.{number}", now_ms=NOW_MS)
    known = {one.node_id for one in around.neighbours(now_ms=NOW_MS)}
    assert known == {key.node_id for key in keys[:-1]}
    later = NOW_MS + NEIGHBOUR_LIFE_MS
    assert around.neighbours(now_ms=later) == ()
    heard = around.hear(datagram(keys[-1], now_ms=later), "198.51.100.99", now_ms=later)
    assert heard is not None
    assert heard.is_new
