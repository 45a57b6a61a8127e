"""Golden vectors of solicitations, offers and the topics of the market. Never delete a file in `data/`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stook.codec import decode, encode
from stook.contracts.market import (
    Offer,
    OfferReply,
    Solicitation,
    capacity_topic,
    capacity_topics,
    read_solicitation,
    topics_served,
)
from stook.contracts.topics import Degree
from stook.ids import NetworkId, PublicKey

VECTORS = json.loads((Path(__file__).parent / "data" / "market-v1.json").read_text())
OFFER = decode(Offer, bytes.fromhex(VECTORS["offer"]))


def test_a_solicitation() -> None:
    data = bytes.fromhex(VECTORS["solicitation"])
    found = read_solicitation(
        bytes.fromhex(VECTORS["topic"]),
        PublicKey(bytes.fromhex(VECTORS["originator_key"])),
        data,
        network=NetworkId("test"),
        now_ms=VECTORS["now_ms"],
    )
    assert encode(found) == data
    assert found.digest.hex() == VECTORS["digest"]
    assert isinstance(found, Solicitation)


def test_an_offer_names_its_solicitation() -> None:
    assert encode(OFFER).hex() == VECTORS["offer"]
    assert OFFER.solicitation.hex() == VECTORS["digest"]


@pytest.mark.parametrize("data", VECTORS["replies"])
def test_replies(data: str) -> None:
    assert encode(decode(OfferReply, bytes.fromhex(data))).hex() == data


def test_topics() -> None:
    announcement = OFFER.announcement.announcement
    served = topics_served(announcement, Degree.LOW, Degree.ANY)
    assert sorted(topic.hex() for topic in served) == VECTORS["topics_served"]
    assert capacity_topic(announcement, Degree.LOW, Degree.MEDIUM).hex() == VECTORS["capacity_topic"]
    wanted = VECTORS["capacity_topics_for"]
    assert sorted(topic.hex() for topic in capacity_topics(bytes.fromhex(wanted["criteria"]))) == wanted["topics"]
