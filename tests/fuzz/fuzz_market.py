"""Targets: what is published, drafts on the market, and both sides of a bargain."""

from __future__ import annotations

from functools import cache

import contract_samples as samples
from contract_samples import FARMER, NETWORK, NOW_MS, RENTER
from fuzz_base import Tape, target, vary
from stook.codec import decode, encode
from stook.contracts.announcement import sign_announcement
from stook.contracts.market import (
    MAX_ROUNDS,
    NOBODY,
    OPEN_ROOT,
    Offer,
    OfferReply,
    Prices,
    Solicitation,
    addressed_to,
    asked,
    bid,
    quoted,
    read_solicitation,
)
from stook.contracts.topics import topic_of
from stook.errors import StookError
from stook.farmer.asking import Asking
from stook.identity.contact import Address, AddressKind, sign_contact
from stook.overlay.bloom import NOTHING
from stook.overlay.publication import (
    Publish,
    check_publication,
    sign_publication,
    verify_publication,
)
from stook.overlay.quasar import Quasar
from stook.renter.bargain import Bargain, Table
from stook.renter.planner import Candidate


@cache
def _solicitation() -> Solicitation:
    contact = sign_contact(
        RENTER,
        network=NETWORK,
        addresses=[Address(AddressKind.DIRECT, "10.0.0.1", 4000)],
        sequence=NOW_MS,
        issued_ms=NOW_MS,
    )
    draft = samples.draft(farmer_key=NOBODY, farmer_index=0, shard_root=OPEN_ROOT)
    return Solicitation(draft, 4, 8, NOW_MS + 10_000, contact)


def _publish(contents: bytes, topic: bytes) -> bytes:
    signed = sign_publication(RENTER, network=NETWORK, topic=topic, contents=contents, now_ms=NOW_MS)
    return encode(Publish(signed, 5, (bytes(20),)))


@target(
    "overlay.publication",
    seeds=lambda: [_publish(b"", b"\x0f\x01\x02\x02\x02"), _publish(encode(_solicitation()), b"x" * 16)],
    covers=(
        "stook.overlay.publication.check_publication",
        "stook.overlay.publication.verify_publication",
        "stook.overlay.quasar.Quasar.receive",
    ),
    weight=4,
)
def publication(data: bytes) -> None:
    """As it came; then with fields changed and signed again, so that every later check is reached."""
    node = Quasar(FARMER.node_id, NETWORK)
    node.subscribe([b"\x0f\x01\x02\x02\x02"])
    node.heard(RENTER.node_id, NOTHING, NOW_MS)
    request = decode(Publish, data, max_bytes=1 << 16)
    changed = vary(request.signed.publication, Tape(data[::-1]))
    for text, again in ((request.signed.publication, False), (changed, True)):
        signed = request.signed
        if again:
            try:
                text = decode(type(text), encode(text))
            except StookError:
                continue
            signed = type(signed)(text, RENTER.sign(text.digest))
        try:
            check_publication(text, network=NETWORK, now_ms=NOW_MS)
            verify_publication(signed)
        except StookError:
            pass
        try:
            received = node.receive(
                signed,
                ttl=request.ttl,
                publishers=request.publishers,
                sender=RENTER.node_id,
                now_ms=NOW_MS,
                dice=lambda size: bytes(size),
            )
        except StookError:
            continue
        assert not received.forward.to, "its only neighbour is the sender"


@target(
    "contracts.market",
    seeds=lambda: [encode(_solicitation())],
    covers=("stook.contracts.market.read_solicitation",),
    weight=4,
)
def solicitation(data: bytes) -> None:
    """On the topic that it names, by the renter that it names."""
    found = decode(Solicitation, data)
    try:
        topic = topic_of(found.draft.criteria)
    except ValueError:
        topic = b"\x0f" + found.draft.criteria
    read = read_solicitation(topic, found.draft.renter_key, data, network=NETWORK, now_ms=NOW_MS)
    assert read == found
    offer = samples.announcement()
    assert addressed_to(read.draft, offer).farmer_key == FARMER.public_key
    assert bid(read.draft).within(Prices(2**63 - 1, 2**63 - 1))


@cache
def _offer() -> Offer:
    signed = sign_announcement(samples.announcement(), FARMER)
    return Offer(bytes(32), signed, 0, 4, asked(signed.announcement), NOW_MS + 1)


@target(
    "contracts.market.bargain",
    seeds=lambda: [encode(_offer()), encode(OfferReply(209, "", Prices(1, 1)))],
    covers=("stook.renter.bargain.Bargain.answer", "stook.farmer.asking.Asking.offer"),
)
def bargain(data: bytes) -> None:
    """Whatever the other says, nobody pays more than it will, and nobody takes less."""
    farmer, renter, announcement = Asking(50), Bargain(Prices(1_000, 1_000)), samples.announcement()
    try:
        reply = decode(OfferReply, data)
    except StookError:
        offer = decode(Offer, data)
        candidate = Candidate(offer.announcement.node_id, 1)
        answer = renter.answer(offer, candidate, Table(8))
        assert answer.code or offer.prices.within(renter.most)
        assert answer.counter is None or answer.counter.within(renter.most)
        lower = quoted(offer.announcement.announcement, offer.prices)
        assert asked(lower).within(asked(offer.announcement.announcement))
        return
    if reply.counter is not None:
        for turn in range(MAX_ROUNDS + 1):
            prices = farmer.offer(announcement, reply.counter, turn)
            if prices is not None:
                assert farmer.floor(announcement).within(prices)
                assert prices.within(asked(announcement))
