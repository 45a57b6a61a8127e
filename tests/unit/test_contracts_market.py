"""What makes a solicitation, an offer's prices, the topics of both sides, and how both bargain."""

from __future__ import annotations

import itertools
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import contract_samples as samples
from contract_samples import FARMER, NETWORK, NOW_MS, RENTER
from contract_samples import draft as terms
from stook.codec import encode
from stook.contracts.announcement import Announcement, sign_announcement
from stook.contracts.market import (
    MAX_ANSWER_MS,
    MAX_ROUNDS,
    MAX_SOLICITATION_BYTES,
    NOBODY,
    OPEN_ROOT,
    Offer,
    Prices,
    Solicitation,
    addressed_to,
    asked,
    capacity_topic,
    capacity_topics,
    quoted,
    read_solicitation,
    topics_served,
)
from stook.contracts.negotiation import DAY_MS, check_draft
from stook.contracts.topics import Degree, criteria_of, topic_of
from stook.errors import MalformedError, ReasonCode, RefusedError
from stook.farmer.asking import Asking, Callers, Quote, Quotes
from stook.identity.contact import Address, AddressKind, sign_contact
from stook.identity.keys import NodeKey
from stook.ids import NodeId, PublicKey
from stook.renter.bargain import UNLIMITED, Bargain, Kept, Table, thrifty
from stook.renter.planner import Candidate, Reason, Spread

PRICE = Prices(1_000, 5_000)
"""What the sample farmer asks."""


def announcement(**changes: object) -> Announcement:
    made: Announcement = msgspec.structs.replace(
        samples.announcement(),
        storage_price_per_gib_hour=PRICE.storage_price_per_gib_hour,
        download_price_per_gib=PRICE.download_price_per_gib,
        **changes,
    )
    return made


def contact(key: NodeKey = RENTER, *, network: str = NETWORK, addresses: int = 1) -> object:
    places = [Address(AddressKind.DIRECT, "10.0.0.1", 4000)] * addresses
    return sign_contact(key, network=network, addresses=places, sequence=NOW_MS, issued_ms=NOW_MS)


def market_draft(**changes: object) -> object:
    return terms(farmer_key=NOBODY, farmer_index=0, shard_root=OPEN_ROOT, **changes)


def solicitation(**changes: object) -> Solicitation:
    fields: dict[str, object] = {
        "draft": market_draft(),
        "count": 4,
        "offers_wanted": 8,
        "answer_by_ms": NOW_MS + 10_000,
        "contact": contact(),
    }
    return Solicitation(**(fields | changes))


def read(found: Solicitation, *, topic: bytes | None = None, key: PublicKey = RENTER.public_key) -> Solicitation:
    return read_solicitation(
        topic_of(found.draft.criteria) if topic is None else topic,
        key,
        encode(found),
        network=NETWORK,
        now_ms=NOW_MS,
    )


# --- solicitations ---------------------------------------------------------------------------------------------------


def test_a_good_one_is_read_and_addressed() -> None:
    found = read(solicitation())
    offer = announcement()
    draft = addressed_to(found.draft, offer)
    assert draft.farmer_key == offer.contact.contact.public_key
    check_draft(draft, announcement=offer, renter_key=RENTER.public_key, now_ms=NOW_MS)
    assert len(encode(found)) < MAX_SOLICITATION_BYTES


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"draft": terms()}, ReasonCode.BAD_TERMS),
        ({"draft": market_draft(renter_key=FARMER.public_key)}, ReasonCode.BAD_TERMS),
        ({"answer_by_ms": NOW_MS + 2 * MAX_ANSWER_MS + 1}, ReasonCode.BAD_TERMS),
        ({"answer_by_ms": NOW_MS - 1}, ReasonCode.STALE),
        ({"draft": market_draft(network="other")}, ReasonCode.WRONG_NETWORK),
        ({"contact": contact(network="other")}, ReasonCode.WRONG_NETWORK),
        ({"contact": contact(FARMER)}, ReasonCode.WRONG_IDENTITY),
        ({"contact": msgspec.structs.replace(contact(), signature=bytes(64))}, ReasonCode.BAD_SIGNATURE),
    ],
)
def test_what_is_wrong_with_one(changes: dict[str, object], code: ReasonCode) -> None:
    with pytest.raises(RefusedError) as refused:
        read(solicitation(**changes))
    assert refused.value.code is code


def test_it_belongs_on_its_topic_and_says_where_to_call() -> None:
    for topic in (b"\x0f\x01\x01\x01\x01", b"\x0c" + topic_of(solicitation().draft.criteria)[1:]):
        with pytest.raises(RefusedError) as refused:
            read(solicitation(), topic=topic)
        assert refused.value.code is ReasonCode.BAD_TERMS
    with pytest.raises(RefusedError):
        read(solicitation(draft=market_draft(criteria=b"\x09\x09\x09\x09")), topic=b"\x0f\x09\x09\x09\x09")
    with pytest.raises(MalformedError):
        read(solicitation(contact=contact(addresses=0)))


# --- topics ----------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from([1 << 14, 1 << 20, 1 << 22]),
    st.integers(1, 400).map(lambda days: days * DAY_MS),
    st.sampled_from(list(Degree)),
    st.sampled_from(list(Degree)),
    st.sampled_from(list(Degree)),
    st.sampled_from(list(Degree)),
)
def test_whoever_can_take_a_draft_hears_of_it_and_is_heard_of(
    size: int, duration: int, wants: Degree, fast: Degree, has: Degree, speed: Degree
) -> None:
    farmer = announcement(min_duration_ms=DAY_MS, max_duration_ms=366 * DAY_MS, max_shard_bytes=1 << 22)
    criteria = criteria_of(size, duration, wants, fast)
    able = duration <= farmer.max_duration_ms and wants <= has and fast <= speed
    if able:
        assert topic_of(criteria) in topics_served(farmer, has, speed)
        assert (
            has is Degree.ANY or speed is Degree.ANY or capacity_topic(farmer, has, speed) in capacity_topics(criteria)
        )
    elif wants > has or fast > speed:
        assert topic_of(criteria) not in topics_served(farmer, has, speed)


def test_a_farmer_never_serves_more_topics_than_it_may_subscribe_to() -> None:
    widest = announcement(min_duration_ms=0, max_duration_ms=10**15, max_shard_bytes=1 << 22)
    assert len(topics_served(widest, Degree.HIGH, Degree.HIGH)) <= 256
    assert len(capacity_topics(bytes(4))) == 81


# --- the farmer's side -----------------------------------------------------------------------------------------------


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 100), st.integers(0, 2**62), st.integers(0, 2**62))
def test_a_farmer_stays_between_its_floor_and_what_it_announces(
    storage: int, download: int, discount: int, wanted_storage: int, wanted_download: int
) -> None:
    offer = msgspec.structs.replace(announcement(), storage_price_per_gib_hour=storage, download_price_per_gib=download)
    strategy = Asking(discount)
    for turn in range(MAX_ROUNDS):
        prices = strategy.offer(offer, Prices(wanted_storage, wanted_download), turn)
        if prices is not None:
            assert strategy.floor(offer).within(prices)
            assert prices.within(asked(offer))
    assert strategy.offer(offer, Prices(0, 0), MAX_ROUNDS) is None


def test_a_farmer_comes_down_and_takes_what_is_enough() -> None:
    offer, strategy = announcement(), Asking(50)
    assert [strategy.offer(offer, Prices(0, 0), turn) for turn in range(3)] == [
        PRICE,
        Prices(750, 3_750),
        Prices(500, 2_500),
    ]
    assert strategy.offer(offer, Prices(600, 3_000), 1) == Prices(600, 3_000)
    assert strategy.offer(offer, Prices(9_999, 3_000), 1) == Prices(1_000, 3_000)
    assert strategy.offer(offer, Prices(UNLIMITED, UNLIMITED), 0) == PRICE
    firm = Asking(0)
    assert firm.offer(offer, Prices(0, 0), 0) == PRICE
    assert firm.offer(offer, Prices(600, 3_000), 1) == PRICE
    with pytest.raises(ValueError, match="percent"):
        Asking(101)


def test_an_offer_binds_towards_one_renter_for_so_many_contracts_and_so_long() -> None:
    quotes = Quotes(most=2)
    mine, other = RENTER.public_key, FARMER.public_key
    quote = Quote(PRICE, NOW_MS + 10, 3)
    quotes.give(mine, quote)
    assert quotes.open_to(mine, 3, NOW_MS) is quote
    assert quotes.open_to(mine, 4, NOW_MS) is None
    assert quotes.open_to(mine, 3, NOW_MS + 11) is None
    assert quotes.open_to(other, 1, NOW_MS) is None
    newer = Quote(PRICE, NOW_MS + 10, 1)
    quotes.give(mine, newer)
    quotes.take_back(mine, quote)
    assert quotes.open_to(mine, 1, NOW_MS) is newer
    quotes.take_back(mine, newer)
    assert quotes.open_to(mine, 1, NOW_MS) is None
    for number in range(5):
        quotes.give(PublicKey(bytes([number]) * 33), newer)
    assert len(quotes) == 2
    assert quoted(announcement(), Prices(1, 9_999)).download_price_per_gib == 5_000


def test_nobody_silences_a_renter_that_answered_before_by_naming_its_address() -> None:
    callers = Callers(rest_ms=100, per_host=2, most=30)
    place, beside = (Address(AddressKind.DIRECT, "a", port) for port in (1, 2))
    callers.proved(b"renter", "a", 1)
    # Somebody else answers there: that concerns who named it.
    callers.failed([place], NOW_MS, b"liar", for_all=False)
    assert not callers.may_call([place], NOW_MS, b"liar")
    assert callers.may_call([place], NOW_MS, b"newcomer")
    # The host has had enough, and still the one that was found there is called.
    callers.failed([place], NOW_MS, b"another liar", for_all=False)
    assert not callers.may_call([place], NOW_MS, b"newcomer")
    assert not callers.may_call([beside], NOW_MS, b"renter")
    assert callers.may_call([place], NOW_MS, b"renter")
    # No address is blamed for who called us and does not answer.
    for number in range(5):
        callers.failed_over_its_session(NOW_MS, b"guest %d" % number)
    assert not callers.may_call([Address(AddressKind.DIRECT, "c", 1)], NOW_MS, b"guest 1")
    assert callers.may_call([Address(AddressKind.DIRECT, "c", 1)], NOW_MS, b"newcomer")
    # Until it is there no more.
    callers.failed([place], NOW_MS, b"renter")
    assert not callers.may_call([place], NOW_MS, b"renter")
    for number in range(40):
        callers.proved(b"%d" % number, "b", 1)
    assert len(callers._proved) == 30


def test_a_stranger_is_called_once_about_one_thing_and_not_again_when_nobody_was_there() -> None:
    callers = Callers(rest_ms=100, per_host=2, most=3)
    first, second, third, other = (
        Address(AddressKind.DIRECT, host, port) for host, port in (("a", 1), ("a", 2), ("a", 3), ("b", 1))
    )
    assert callers.first_time(b"a", NOW_MS)
    assert not callers.first_time(b"a", NOW_MS + 50)
    assert callers.may_call([first], NOW_MS)
    callers.failed([first], NOW_MS)
    assert not callers.may_call([other, first], NOW_MS + 100)
    assert callers.may_call([second], NOW_MS + 100)
    callers.failed([second], NOW_MS + 50)
    assert not callers.may_call([third], NOW_MS + 100)
    assert callers.may_call([other], NOW_MS + 100)
    assert callers.may_call([first, third], NOW_MS + 101)
    callers.failed([first, third, other], NOW_MS + 101)
    assert not callers.may_call([Address(AddressKind.DIRECT, "c", 1)], NOW_MS + 110)
    assert callers.first_time(b"b", NOW_MS)
    assert callers.first_time(b"c", NOW_MS)
    assert not callers.first_time(b"d", NOW_MS)
    assert callers.first_time(b"a", NOW_MS + 101)


# --- the renter's side -----------------------------------------------------------------------------------------------


def candidate(number: int = 1, **changes: object) -> Candidate:
    made = Candidate(NodeId(bytes([number]) * 20), 1 << 30, weight=0.5, networks=frozenset({f"10.0.{number}.0/24"}))
    return replace(made, **changes)


def offered(prices: Prices, turn: int = 0) -> Offer:
    signed = sign_announcement(announcement(), FARMER)
    return Offer(bytes(32), signed, turn, 4, prices, NOW_MS + 1)


def table(*kept: Candidate, wanted: int = 8) -> Table:
    return Table(wanted, {one.node_id: Kept(one, PRICE, 1, NOW_MS) for one in kept})


def test_a_renter_keeps_counters_and_refuses() -> None:
    strategy = Bargain(Prices(800, 4_000), opening_percent=50)
    assert strategy.opening() == Prices(400, 2_000)
    answers = [
        strategy.answer(offered(prices, turn), candidate(), table())
        for prices, turn in (
            (Prices(400, 2_000), 0),
            (Prices(401, 2_000), 0),
            (Prices(601, 3_000), 1),
            (Prices(800, 4_000), 2),
            (Prices(801, 4_000), 2),
        )
    ]
    assert [(answer.code, answer.counter) for answer in answers] == [
        (0, None),
        (ReasonCode.PRICE_TOO_HIGH, Prices(600, 3_000)),
        (ReasonCode.PRICE_TOO_HIGH, Prices(800, 4_000)),
        (0, None),
        (ReasonCode.PRICE_TOO_HIGH, None),
    ]


def test_a_farmer_of_no_standing_is_paid_less_and_a_liar_nothing() -> None:
    strategy = Bargain(Prices(800, 4_000))
    assert strategy.limit(candidate(weight=0.2)) == Prices(400, 2_000)
    assert strategy.limit(candidate(weight=0.9)) == Prices(800, 4_000)
    assert (
        strategy.answer(offered(Prices(0, 0)), candidate(barred=Reason.CONDEMNED), table()).code
        == ReasonCode.NOT_CHOSEN
    )


def test_no_price_limit_takes_what_is_announced_and_not_more() -> None:
    strategy = Bargain()
    assert strategy.opening() == Prices(UNLIMITED, UNLIMITED)
    assert strategy.answer(offered(PRICE), candidate(), table()).code == 0
    dear = strategy.answer(offered(Prices(1_001, 0)), candidate(), table())
    assert (dear.code, dear.counter) == (ReasonCode.PRICE_TOO_HIGH, None)


def test_enough_is_enough_and_nobody_crowds_the_table() -> None:
    strategy = Bargain()
    me = candidate(1, node_id=sign_announcement(announcement(), FARMER).node_id)
    others = [candidate(number) for number in range(2, 12)]
    cheap = offered(Prices(0, 0))
    assert strategy.answer(cheap, me, table(*others)).code == ReasonCode.NOT_CHOSEN
    assert strategy.answer(cheap, me, table(me)).code == ReasonCode.NOT_CHOSEN
    for field, value in (("operator", "one"), ("failure_domain", "one"), ("networks", frozenset({"net"}))):
        crowd = [replace(one, **{field: value}) for one in others[:2]]
        mine = replace(me, **{field: value})
        answer = strategy.answer(cheap, mine, table(*crowd))
        assert answer.code == ReasonCode.NOT_CHOSEN
        assert field.replace("failure_", "").rstrip("s") in answer.detail
        assert strategy.answer(cheap, mine, table(crowd[0])).code == 0
        assert Bargain(spread=Spread.FARMERS).answer(cheap, mine, table(*crowd)).code == 0
    with pytest.raises(ValueError, match="percent"):
        Bargain(opening_percent=101)


def test_bargains_end_within_their_rounds_and_between_floor_and_ceiling() -> None:
    for discount, most in itertools.product((0, 10, 50, 100), (0, 300, 700, 1_000, 5_000)):
        farmer, renter = Asking(discount), Bargain(Prices(most, 5 * most))
        offer = announcement()
        wanted, deal = renter.opening(), None
        for turn in range(MAX_ROUNDS):
            prices = farmer.offer(offer, wanted, turn)
            if prices is None:
                break
            answer = renter.answer(offered(prices, turn), candidate(), table())
            if not answer.code:
                deal = prices
                break
            if answer.counter is None:
                break
            wanted = answer.counter
        floor = farmer.floor(offer)
        possible = floor.within(Prices(most, 5 * most))
        assert (deal is not None) == possible, (discount, most)
        if deal is not None:
            assert floor.within(deal)
            assert deal.within(Prices(most, 5 * most))


def test_thrift_gives_the_cheaper_more_but_not_all() -> None:
    cheap, dear, free = (candidate(n, storage_price_per_gib_hour=p) for n, p in ((1, 500), (2, 1_000), (3, 0)))
    weights = [one.weight for one in thrifty([cheap, dear, free])]
    assert weights == [1.0, 0.5, 2.0]
    assert thrifty([cheap, dear], 0) == [cheap, dear]
    assert thrifty([free]) == [free]
