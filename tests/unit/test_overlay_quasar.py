"""Quasar's decisions: filters, routes, limits."""

from __future__ import annotations

import random

import pytest

from stook.errors import MisbehaviourError, ReasonCode, RefusedError
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, NodeId, Signature
from stook.overlay.bloom import DEPTH, NOTHING, PAPER, STANDARD, Shape, attenuated, nearest
from stook.overlay.publication import (
    MAX_TTL,
    PUBLICATION_LIFE_MS,
    Publication,
    SignedPublication,
    sign_publication,
)
from stook.overlay.quasar import MAX_TOPICS, MINUTE_MS, Buckets, Quasar, QuasarRules, Received
from stook.sim.quasar import Field, Setting, by_hops, quasar, topic_codes

NET = NetworkId("test")
NOW = 1_700_000_000_000
RENTER = NodeKey.from_secret(bytes([9]) * 32)
TOPICS = topic_codes(81)


def name(number: int) -> NodeId:
    return NodeId(bytes([number]) * 20)


def node(number: int = 1, rules: QuasarRules | None = None) -> Quasar:
    return Quasar(name(number), NET, rules if rules is not None else QuasarRules())


def dice(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def said(
    topic: bytes = TOPICS[0], *, key: NodeKey = RENTER, at: int = NOW, ttl: int = MAX_TTL, n: int = 0
) -> SignedPublication:
    return sign_publication(key, network=NET, topic=topic, contents=bytes([n]), now_ms=at, max_ttl=ttl)


def leads(*levels: bytes | None) -> tuple[int, ...]:
    """Filters that hold one topic a level."""
    found = [STANDARD.filter_of([topic] if topic else []) for topic in levels]
    return (*found, *NOTHING)[:DEPTH]


def hand(
    to: Quasar,
    signed: SignedPublication,
    *,
    sender: NodeId = RENTER.node_id,
    ttl: int = 5,
    publishers: tuple[NodeId, ...] = (),
    at: int = NOW,
) -> Received:
    return to.receive(signed, ttl=ttl, publishers=publishers, sender=sender, now_ms=at, dice=dice)


# --- filters ---------------------------------------------------------------------------------------------------------


def test_a_filter_holds_what_was_put_in_and_survives_the_wire() -> None:
    for shape in (STANDARD, PAPER):
        bloom = shape.filter_of(TOPICS[:9])
        assert all(bloom & shape.mask(topic) == shape.mask(topic) for topic in TOPICS[:9])
        assert shape.from_bytes(shape.to_bytes(bloom)) == bloom
        with pytest.raises(ValueError, match="bytes"):
            shape.from_bytes(b"\0")


def test_the_papers_filter_is_full_of_falsehoods_and_ours_is_not() -> None:
    strangers = [b"\xee" + number.to_bytes(4, "big") for number in range(3000)]
    false = {
        shape: sum(shape.filter_of(TOPICS) & shape.mask(one) == shape.mask(one) for one in strangers) / len(strangers)
        for shape in (PAPER, STANDARD)
    }
    assert 0.2 < false[PAPER] < 0.5
    assert false[STANDARD] < 0.01


@pytest.mark.parametrize(("bits", "hashes"), [(0, 1), (12, 1), (64, 0), (64, 17)])
def test_no_shape_that_makes_no_sense(bits: int, hashes: int) -> None:
    with pytest.raises(ValueError, match="filter"):
        Shape(bits, hashes)


def test_levels_move_one_farther_away() -> None:
    levels = attenuated(1, [(2, 4, 8), (16, 32, 64)])
    assert levels == (1, 2 | 16, 4 | 32)
    assert [nearest(levels, mask) for mask in (1, 16, 32, 64)] == [0, 1, 2, None]


def test_a_neighbour_is_not_told_what_it_told() -> None:
    one = node()
    one.heard(name(2), leads(TOPICS[0]), NOW)
    one.heard(name(3), leads(TOPICS[1]), NOW)
    assert one.filters_for(name(2)) == leads(None, TOPICS[1])
    assert one.filters_for(None)[1] == STANDARD.filter_of(TOPICS[:2])


def test_a_topic_that_nobody_wants_any_more_fades() -> None:
    field = Field(Setting(3, nodes=60, subscriptions=2))
    topic = TOPICS[0]
    field.nodes[0].subscribe([topic])
    for other in field.nodes[1:]:
        other.subscribe(set(other.topics) - {topic})
    field.spread()
    mask = STANDARD.mask(topic)
    assert sum(nearest(one.filters_for(None), mask) is not None for one in field.nodes) > 10
    field.nodes[0].subscribe([TOPICS[1]])
    field.spread()
    assert all(nearest(one.filters_for(None), mask) is None for one in field.nodes)


def test_the_silent_lead_nowhere() -> None:
    one = node()
    one.heard(name(2), leads(TOPICS[0]), NOW)
    assert one.expire(NOW + one.rules.filter_life_ms) == []
    assert one.expire(NOW + one.rules.filter_life_ms + 1) == [name(2)]
    assert one.filters_for(None) == NOTHING


def test_neighbours_are_bounded_and_lies_about_topics_refused() -> None:
    one = node(rules=QuasarRules(max_neighbours=2, links=0))
    assert one.heard(name(2), NOTHING, NOW)
    assert not one.heard(name(2), NOTHING, NOW + 1)
    one.heard(name(3), NOTHING, NOW)
    for stranger, levels, code in (
        (name(4), NOTHING, ReasonCode.RATE_LIMITED),
        (name(1), NOTHING, ReasonCode.WRONG_IDENTITY),
        (name(2), (2**2048 - 1, 0, 0), ReasonCode.MALFORMED),
    ):
        with pytest.raises(RefusedError) as refused:
            one.heard(stranger, levels, NOW)
        assert refused.value.code is code
    with pytest.raises(ValueError, match="topics"):
        one.subscribe(number.to_bytes(4, "big") for number in range(MAX_TOPICS + 1))


def test_strangers_cannot_take_every_place() -> None:
    one = node(rules=QuasarRules(max_neighbours=5, links=2))
    for number in (2, 3, 4):
        one.heard(name(number), NOTHING, NOW)
    with pytest.raises(RefusedError):
        one.heard(name(5), NOTHING, NOW)
    one.heard(name(2), NOTHING, NOW, asked=True)
    one.heard(name(6), NOTHING, NOW)
    assert one.heard(name(7), NOTHING, NOW, asked=True)
    assert one.asked == {name(2), name(7)}
    with pytest.raises(RefusedError):
        one.heard(name(8), NOTHING, NOW, asked=True)


# --- routes ----------------------------------------------------------------------------------------------------------


def test_the_nearest_level_that_leads_there_is_taken() -> None:
    topic = TOPICS[0]
    one = node()
    one.heard(name(2), leads(topic), NOW)
    one.heard(name(3), leads(None, topic), NOW)
    one.heard(name(4), leads(None, None, topic), NOW)
    one.heard(name(5), NOTHING, NOW)
    assert hand(one, said()).forward.to == (name(2),)
    one.subscribe([topic])
    received = hand(one, said(n=1))
    assert received.deliver
    assert received.forward.to == (name(2), name(3))
    for gone, left in ((2, (name(3),)), (3, (name(4),)), (4, (name(5),))):
        one.subscribe([])
        one.drop(name(gone))
        received = hand(one, said(n=gone))
        assert received.forward.to == left
        assert not received.deliver


def test_who_has_it_is_not_sent_it_again() -> None:
    one = node()
    for number in (2, 3, 4):
        one.heard(name(number), leads(TOPICS[0]), NOW)
    forward = hand(one, said(), sender=RENTER.node_id, publishers=(name(2),), ttl=7).forward
    assert set(forward.to) == {name(3), name(4)}
    assert forward.ttl == 6
    assert forward.publishers == (name(2), name(1), *forward.to)
    again = hand(one, said(), sender=name(3))
    assert again.known
    assert not again.forward.to


def test_no_more_than_the_fanout_and_nothing_at_the_end_of_the_road() -> None:
    one = node()
    for number in range(2, 20):
        one.heard(name(number), leads(TOPICS[0]), NOW)
    assert len(hand(one, said()).forward.to) == one.rules.fanout
    assert not hand(one, said(n=1), ttl=0).forward.to


def test_the_list_of_those_who_have_it_stays_short() -> None:
    one = node()
    one.heard(name(2), leads(TOPICS[0]), NOW)
    many = tuple(NodeId(number.to_bytes(20, "big")) for number in range(64))
    told = hand(one, said(), publishers=many).forward.publishers
    assert len(told) == 64
    assert told[-2:] == (name(1), name(2))


def test_another_one_gets_it_when_a_neighbour_is_gone() -> None:
    one = node()
    one.heard(name(2), leads(TOPICS[0]), NOW)
    one.heard(name(3), leads(None, TOPICS[0]), NOW)
    forward = hand(one, said(), ttl=4).forward
    instead = one.failed(name(2), TOPICS[0], forward, dice)
    assert (instead.to, instead.ttl) == ((name(3),), 3)
    assert one.neighbours == (name(3),)
    assert not one.failed(name(3), TOPICS[0], instead, dice).to


# --- what is refused -------------------------------------------------------------------------------------------------


def refused(one: Quasar, signed: SignedPublication, code: ReasonCode, **how: object) -> None:
    with pytest.raises((RefusedError, MisbehaviourError)) as error:
        hand(one, signed, **how)
    assert error.value.code is code


def test_what_is_wrong_with_a_publication() -> None:
    one = node()
    good = said()
    text = good.publication

    def signed_as(**changes: object) -> SignedPublication:
        fields = {field: getattr(text, field) for field in text.__struct_fields__} | changes
        changed = Publication(**fields)
        return SignedPublication(changed, RENTER.sign(changed.digest))

    refused(one, good, ReasonCode.NOT_A_NEIGHBOUR, sender=name(2))
    refused(one, good, ReasonCode.TTL_TOO_HIGH, ttl=MAX_TTL + 1)
    refused(one, said(ttl=3), ReasonCode.TTL_TOO_HIGH, ttl=4)
    refused(one, signed_as(version=2), ReasonCode.WRONG_VERSION)
    refused(one, signed_as(network="other"), ReasonCode.WRONG_NETWORK)
    refused(one, signed_as(max_ttl=MAX_TTL + 1), ReasonCode.TTL_TOO_HIGH)
    refused(one, said(at=NOW + PUBLICATION_LIFE_MS + 1), ReasonCode.CLOCK_SKEW)
    refused(one, said(at=NOW - PUBLICATION_LIFE_MS - 1), ReasonCode.STALE)
    refused(one, SignedPublication(text, Signature(bytes(64))), ReasonCode.BAD_SIGNATURE)
    refused(node(rules=QuasarRules(puzzle_bits=30)), good, ReasonCode.PUZZLE_UNSOLVED)
    assert not hand(one, good).known


def test_an_originator_is_held_to_its_share() -> None:
    one = node()
    per_minute = one.rules.originator_per_minute
    for number in range(per_minute):
        hand(one, said(n=number))
    refused(one, said(n=200), ReasonCode.RATE_LIMITED)
    other = NodeKey.from_secret(bytes([8]) * 32)
    assert not hand(one, said(key=other), sender=other.node_id).known
    later = NOW + MINUTE_MS // per_minute
    assert not hand(one, said(n=201, at=later), at=later).known
    refused(one, said(n=202, at=later), ReasonCode.RATE_LIMITED, at=later)


def test_nobody_uses_up_anothers_share() -> None:
    one = node()
    one.heard(name(2), NOTHING, NOW)
    for number in range(100):
        forged = SignedPublication(said(n=number).publication, Signature(bytes(64)))
        refused(one, forged, ReasonCode.BAD_SIGNATURE, sender=name(2))
    assert not hand(one, said(n=150)).known


def test_a_neighbour_is_held_to_what_it_may_hand_on() -> None:
    one = node(rules=QuasarRules(neighbour_per_minute=5))
    one.heard(name(2), NOTHING, NOW)
    for number in range(5):
        key = NodeKey.from_secret(bytes([20 + number]) * 32)
        hand(one, said(key=key), sender=name(2))
    refused(one, said(), ReasonCode.RATE_LIMITED, sender=name(2))
    assert not hand(one, said(), sender=RENTER.node_id).known


def test_a_neighbour_that_changes_its_mind_all_the_time_is_not_followed() -> None:
    one = node(rules=QuasarRules(updates_per_minute=3))
    for number in range(4):
        one.heard(name(2), leads(TOPICS[number]), NOW)
    with pytest.raises(RefusedError) as error:
        one.heard(name(2), NOTHING, NOW)
    assert error.value.code is ReasonCode.RATE_LIMITED
    assert one.heard(name(2), NOTHING, NOW + MINUTE_MS // 3)
    assert one.heard(name(2), leads(TOPICS[0]), NOW, asked=True)


def test_it_refuses_rather_than_forgets() -> None:
    one = node(rules=QuasarRules(max_seen=2, originator_per_minute=1000))
    hand(one, said(n=1))
    hand(one, said(n=2))
    refused(one, said(n=3), ReasonCode.RATE_LIMITED)
    later = NOW + 2 * PUBLICATION_LIFE_MS + 1
    assert not hand(one, said(n=4, at=later), at=later).known


def test_buckets_make_room_only_for_the_full() -> None:
    buckets = Buckets(2, most=1)
    buckets.check(name(1), NOW)
    buckets.charge(name(1), NOW)
    with pytest.raises(RefusedError):
        buckets.check(name(2), NOW)
    buckets.check(name(2), NOW + MINUTE_MS)
    buckets.charge(name(2), NOW + MINUTE_MS)
    assert len(buckets) == 1


def test_our_own_publications_are_counted_and_not_taken_back() -> None:
    one = node()
    one.heard(name(2), leads(TOPICS[0]), NOW)
    mine = said(key=NodeKey.from_secret(bytes([5]) * 32))
    assert one.publish(mine, ttl=MAX_TTL, now_ms=NOW, dice=dice).forward.to == (name(2),)
    assert hand(one, mine, sender=name(2)).known


# --- many ------------------------------------------------------------------------------------------------------------


def test_a_few_hundred_nodes_hear_what_they_want() -> None:
    result = quasar(Setting(1, nodes=300, publications=30))
    assert result["delivery"] > 0.98
    assert result["messages_per_publication"] < 300
    paper = quasar(Setting(1, nodes=300, publications=30, nearest=True, rules=QuasarRules(links=3)))
    assert paper["delivery"] < 0.2


def test_the_same_seed_gives_the_same_figures() -> None:
    first, second = (quasar(Setting(4, nodes=120, publications=10, dead=0.2)) for _ in range(2))
    first.pop("seconds"), second.pop("seconds")
    assert first == second
    assert first["delivery"] > 0.9


@pytest.mark.parametrize(
    "wrong",
    [
        {"nodes": 1},
        {"topics": 0},
        {"topics": 163},
        {"subscriptions": 82},
        {"rules": QuasarRules(links=0)},
        {"dead": 1.0},
    ],
)
def test_no_setting_that_makes_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"topics|links"):
        Setting(1, **wrong)


def test_more_hops_reach_more() -> None:
    few, many = by_hops(Setting(1, nodes=200, publications=10), (2, 12))
    assert few["delivery"] < many["delivery"]
