"""Golden vectors of topics, filters and publications. Never delete a file in `data/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stook.codec import decode, encode
from stook.identity.keys import NodeKey
from stook.overlay.bloom import PAPER, STANDARD, attenuated
from stook.overlay.publication import Filters, SignedPublication, sign_publication, verify_publication

VECTORS = json.loads((Path(__file__).parent / "data" / "publication-v1.json").read_text())


def filter_of(topics: list[str]) -> int:
    return STANDARD.filter_of(bytes.fromhex(topic) for topic in topics)


@pytest.mark.parametrize("vector", VECTORS["topics"], ids=lambda v: v["topic"])
def test_bits_of_a_topic(vector: dict[str, Any]) -> None:
    topic = bytes.fromhex(vector["topic"])
    assert list(STANDARD.indices(topic)) == vector["indices"]
    assert list(PAPER.indices(topic)) == vector["paper_indices"]


def fnv1a(data: bytes) -> int:
    """The reference, as its authors write it."""
    value = 2166136261
    for byte in data:
        value ^= byte
        value = value * 16777619 % 2**32
    return value


@pytest.mark.parametrize("vector", VECTORS["topics"], ids=lambda v: v["topic"])
def test_the_papers_filter_of_160_bits(vector: dict[str, Any]) -> None:
    first, second = (fnv1a(seed + vector["topic"].encode()) for seed in (b"S", b"W"))
    assert vector["paper_indices"] == [first % 160, (first + second) % 160]


def test_the_papers_filter_holds_its_topics() -> None:
    vector = VECTORS["paper_filter"]
    bloom = PAPER.from_bytes(bytes.fromhex(vector["bytes"]))
    assert bloom == PAPER.filter_of(bytes.fromhex(topic) for topic in vector["topics"])
    set_bits = {index for topic in vector["topics"] for index in PAPER.indices(bytes.fromhex(topic))}
    assert {bit for bit in range(160) if bloom >> bit & 1} == set_bits


def test_an_attenuated_filter() -> None:
    vector = VECTORS["levels"]
    neighbours = [tuple(filter_of(level) for level in levels) for levels in vector["neighbours"]]
    levels = attenuated(filter_of(vector["own"]), neighbours)
    assert encode(Filters.of(levels)).hex() == vector["encoded"]
    assert decode(Filters, bytes.fromhex(vector["encoded"])).read() == levels


@pytest.mark.parametrize("vector", VECTORS["publications"], ids=lambda v: v["topic"])
def test_publications(vector: dict[str, Any]) -> None:
    signed = sign_publication(
        NodeKey.from_secret(bytes.fromhex(vector["secret"])),
        network=vector["network"],
        topic=bytes.fromhex(vector["topic"]),
        contents=bytes.fromhex(vector["contents"]),
        now_ms=vector["issued_ms"],
        max_ttl=vector["max_ttl"],
        puzzle_nonce=vector["puzzle_nonce"],
    )
    assert encode(signed).hex() == vector["encoded"]
    assert signed.publication.digest.hex() == vector["digest"]
    verify_publication(decode(SignedPublication, bytes.fromhex(vector["encoded"])))
