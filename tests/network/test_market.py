"""Strangers strike a deal through the open market, in virtual time; and what they refuse one another."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import msgspec
import pytest

from market_town import PRICE, market_of, settle, stall, town
from sim_objects import assert_all_there, assert_spread, put_all, some_objects
from stook.codec import decode, encode
from stook.contracts.market import (
    NOBODY,
    OPEN_ROOT,
    QUOTE_LIFE_MS,
    MarketMethod,
    Offer,
    OfferReply,
    Prices,
    Solicitation,
)
from stook.contracts.topics import Degree, topic_of
from stook.errors import NotEnoughError, ReasonCode, RefusedError, UserError
from stook.farmer.settings import MarketSettings
from stook.identity.contact import Address, AddressKind, sign_contact
from stook.overlay.publication import Publish, QuasarMethod, Subscribe, sign_publication
from stook.renter.drafts import market_draft
from stook.renter.market import Heard, MarketOptions
from stook.sim.loop import run
from stook.sim.network import LOSSY
from stook.sim.signatures import Signatures
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import PlacementState
from stook.wire.endpoint import Peer

MIB = 1 << 20


def placements(net: Testnet) -> list[tuple[bytes, Prices]]:
    store = net.renter.store
    found = []
    for each in store.placements(store.segment_ids(2**62, b"", 10_000)).values():
        for placement in each:
            if placement.state is PlacementState.STORED:
                terms = placement.contract.terms
                prices = Prices(terms.storage_price_per_gib_hour, terms.download_price_per_gib)
                found.append((placement.farmer, prices))
    return found


async def put_each(net: Testnet, objects: dict[str, bytes]) -> None:
    """Each in a segment of its own."""
    for name, data in objects.items():
        await put_all(net, {name: data})


def test_a_deal_with_strangers_is_made_stored_under_and_read_back() -> None:
    """The renter knows one seed, pays 800 at most, and everybody announces 1,000: only bargaining finds anybody."""

    async def main() -> None:
        async with town(settings=stall(50), most=Prices(800, 4_000), signatures=Signatures.REAL) as net:
            await settle(net)
            assert len(net.renter.agent.book) == 1
            result = await market_of(net).solicit(MIB, 40)
            assert len(result.kept) == 8
            assert set(result.refused) == {ReasonCode.PRICE_TOO_HIGH}
            assert result.refused.total() >= len(result.kept)  # nobody was kept at its first price
            objects = some_objects(net)
            await put_all(net, objects)
            await assert_all_there(net, objects)
            assert_spread(net)
            made = placements(net)
            assert len(made) == 15
            assert {farmer for farmer, _ in made} <= set(result.kept)
            assert {prices for _, prices in made} == {Prices(640, 3_200)}
            # What stands in the contract is what was bargained for, signed by both, and proved as on the direct road.
            await net.step_chores("audit")
            await net.pass_seconds(3 * 86_400)
            await net.step_chores("audit")
            assert not await net.renter.blame()

    run(main(), within_seconds=10 * 86_400)


def test_dear_farmers_give_nothing_without_a_bargain() -> None:
    async def main() -> None:
        async with town(most=Prices(800, 4_000)) as net:
            await settle(net)
            result = await market_of(net).solicit(MIB, 4, seconds=5)
            assert not result.kept
            assert set(result.refused) == {ReasonCode.PRICE_TOO_HIGH}
            assert sum(result.refused.values()) == result.offers == 3 * 12
            assert len(net.renter.agent.book) == 12  # but now it knows them, and why not

    run(main(), within_seconds=600)


def test_a_used_up_offer_is_not_used_again() -> None:
    """An offer for two contracts gives two; the third would cost more than the limit and is not made."""

    async def main() -> None:
        async with town(settings=stall(50), most=Prices(800, 4_000)) as net:
            await settle(net)
            result = await market_of(net).solicit(MIB, 2)
            objects = {f"{number}": net.dice(200_000) for number in range(8)}
            with pytest.raises(NotEnoughError, match="price limit"):
                await put_each(net, objects)
            made = Counter(farmer for farmer, _ in placements(net))
            assert made
            assert max(made.values()) <= 2
            assert set(made) <= set(result.kept)
            assert max(prices.storage_price_per_gib_hour for _, prices in placements(net)) <= 800

    run(main(), within_seconds=3600)


def test_a_farmer_that_restarted_is_asked_at_its_announced_price() -> None:
    async def main() -> None:
        async with town(settings=stall(50), most=Prices(2_000, 10_000)) as net:
            await settle(net)
            # The first bid is 1,200, so everybody is taken at 1,000; quoted below only where the opening was lower.
            market = market_of(net)
            for farmer in (await market.solicit(MIB, 8)).kept:
                net.renter.agent.book.keep_quote(farmer, Prices(500, 2_500), 8, 2**62)
            objects = some_objects(net, (100_000,))
            await put_all(net, objects)
            await assert_all_there(net, objects)
            assert {prices for _, prices in placements(net)} == {PRICE}

    run(main(), within_seconds=600)


def test_offers_stand_for_ten_minutes() -> None:
    async def main() -> None:
        async with town(settings=stall(50), most=Prices(800, 4_000)) as net:
            await settle(net)
            market, agent = market_of(net), net.renter.agent
            await market.stock_up()
            assert agent.book.quotes_for(8) == 8
            assert await market.stock_up() is None
            await net.pass_seconds(QUOTE_LIFE_MS / 1000 + 1)
            assert agent.book.quotes_for(1) == 0
            again = await market.stock_up()
            assert again is not None
            assert len(again.kept) == 8

    run(main(), within_seconds=3600)


def test_few_hops_are_tried_first_and_more_when_too_few_answer() -> None:
    async def main() -> None:
        async with town(20, market=MarketOptions(offers_wanted=4, count=1)) as net:
            await settle(net)
            assert (await market_of(net).solicit(MIB, 1)).published == 1
            far = await market_of(net).solicit(MIB, 1, offers_wanted=40, seconds=8)
            assert far.published == 3
            assert len(far.kept) == 20
            assert far.refused == Counter()
            # Whoever heard the same draft again kept quiet.
            assert far.offers == 20

    run(main(), within_seconds=600)


def test_what_farmers_pass_over_is_counted_with_its_reason() -> None:
    small = replace(stall(), terms=replace(stall().terms, max_shard_bytes=1 << 18))
    short = replace(stall(), terms=replace(stall().terms, max_duration_ms=80 * 86_400_000))
    idle = replace(stall(), market=MarketSettings(availability=Degree.LOW))

    async def main() -> None:
        async with town(6, others={1: small, 2: short, 3: idle}) as net:
            await settle(net)
            result = await market_of(net).solicit(MIB, 1, seconds=5)
            assert {farmer.number for farmer in net.farmers if farmer.node_id in result.kept} == {0, 4, 5}
            passed = [(await net.farmers[number].farmer.status()).market for number in (1, 2, 3)]
            assert all(one is not None for one in passed)
            assert [one.passed_over for one in passed if one] == [
                {"SHARD_SIZE_UNSUPPORTED": 1},
                {"TOO_LONG": 1},
                {},
            ]
            assert passed[2] is not None
            assert passed[2].drafts_heard == 0  # it does not even hear of what it does not serve

    run(main(), within_seconds=600)


def test_who_takes_nothing_listens_to_nothing() -> None:
    async def main() -> None:
        async with town(4) as net:
            await settle(net)
            farmer = net.farmers[2]
            farmer.contracts.exits.set_leaving(net.renter.clock.now_ms() + 10**9)
            await farmer.farmer.reap()
            await settle(net, 2)
            result = await market_of(net).solicit(MIB, 1, seconds=4)
            assert farmer.node_id not in result.kept
            assert len(result.kept) == 3

    run(main(), within_seconds=600)


def test_capacity_is_heard_by_whom_it_serves() -> None:
    """A farmer that starts later announces itself to nobody in particular, and the renter's table has it."""

    async def main() -> None:
        async with town(8) as net:
            await settle(net)
            for _ in range(3):
                await net.renter.chores["gossip"].step()
                await net.step_chores("gossip")
            heard: list[Heard] = []
            market_of(net).watcher = heard.append
            await net.step_chores("advertise")
            await net.pass_seconds(5)
            assert len(net.renter.agent.book) == 8
            assert {one.event for one in heard} == {"capacity"}
            assert {one.farmer for one in heard} == {farmer.node_id for farmer in net.farmers}

    run(main(), within_seconds=600)


def test_on_a_line_that_loses_messages() -> None:
    async def main() -> None:
        async with town(20, settings=stall(50), most=Prices(800, 4_000), path=LOSSY, seed=4) as net:
            await settle(net)
            result = await market_of(net).solicit(MIB, 16, offers_wanted=20)
            assert len(result.kept) >= 10
            objects = some_objects(net, (120_000,))
            await put_all(net, objects)
            await assert_all_there(net, objects)

    run(main(), within_seconds=3600)


def test_the_seed_dies_and_the_market_goes_on() -> None:
    async def main() -> None:
        async with town(10, settings=stall(50), most=Prices(800, 4_000)) as net:
            await settle(net)
            await market_of(net).solicit(MIB, 4)
            await net.kill(0)
            for _ in range(3):
                await net.step_chores("gossip")
            await net.pass_seconds(QUOTE_LIFE_MS / 1000)
            result = await market_of(net).solicit(MIB, 16)
            assert len(result.kept) >= 7
            objects = some_objects(net, (120_000,))
            await put_all(net, objects)
            await assert_all_there(net, objects)

    run(main(), within_seconds=7200)


# --- lies ------------------------------------------------------------------------------------------------------------


async def offer_of(net: Testnet, number: int, solicitation: bytes, **changes: object) -> Offer:
    signed = await net.farmers[number].farmer.announcement()
    fields: dict[str, object] = {
        "solicitation": solicitation,
        "announcement": signed,
        "round": 0,
        "count": 1,
        "prices": PRICE,
        "valid_until_ms": 2**62,
    }
    return Offer(**(fields | changes))


async def bring(net: Testnet, number: int, offer: Offer) -> OfferReply | ReasonCode:
    try:
        reply = await net.farmers[number].endpoint.call(
            _renter(net), MarketMethod.OFFER, encode(offer), deadline_seconds=10
        )
    except RefusedError as refusal:
        return refusal.code
    return decode(OfferReply, reply)


def _renter(net: Testnet) -> Peer:
    contact = net.renter.endpoint.contact
    assert contact is not None
    return Peer.of(contact)


def test_offers_that_nobody_asked_for() -> None:
    async def main() -> None:
        async with town(4) as net:
            market = market_of(net)
            # Nobody hears the draft, so that only what we bring by hand is answered.
            task = asyncio.create_task(market.solicit(MIB, 1, seconds=60))
            await net.pass_seconds(1)
            (name,) = market._open
            other = await net.farmers[1].farmer.announcement()
            assert await bring(net, 2, await offer_of(net, 2, bytes(32))) is ReasonCode.NOT_ASKED
            assert await bring(net, 2, await offer_of(net, 2, name, announcement=other)) is ReasonCode.WRONG_IDENTITY
            assert await bring(net, 2, await offer_of(net, 2, name, round=1)) is ReasonCode.NOT_ASKED
            signed = await net.farmers[2].farmer.announcement()
            forged = msgspec.structs.replace(signed, signature=bytes(64))
            assert await bring(net, 2, await offer_of(net, 2, name, announcement=forged)) is ReasonCode.BAD_SIGNATURE
            dear = await bring(net, 2, await offer_of(net, 2, name, prices=Prices(1_001, 0)))
            assert isinstance(dear, OfferReply)
            assert dear.code == ReasonCode.PRICE_TOO_HIGH
            assert await bring(net, 2, await offer_of(net, 2, name)) is ReasonCode.NOT_ASKED  # its one try is over
            kept = await bring(net, 3, await offer_of(net, 3, name))
            assert isinstance(kept, OfferReply)
            assert kept.code == 0
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await bring(net, 1, await offer_of(net, 1, name)) is ReasonCode.NOT_ASKED

    run(main(), within_seconds=600)


def test_a_draft_with_a_strangers_address_makes_each_farmer_try_it_once() -> None:
    async def main() -> None:
        async with town(8) as net:
            await settle(net)
            market = market_of(net)
            victim = net.farmers[7]
            key, clock = net.renter.key, net.renter.clock
            before = victim.farmer._parts.tally.requests[MarketMethod.OFFER]
            for turn in range(5):
                now_ms = clock.now_ms()
                contact = sign_contact(
                    key,
                    network=net.world.network_id,
                    addresses=[Address(AddressKind.DIRECT, victim.host, 4000)],
                    sequence=now_ms,
                    issued_ms=now_ms,
                )
                draft = market_draft(net.renter.agent.rules, MIB, bytes((1, 2, 2, 2)), Prices(0, turn), now_ms)
                assert (draft.farmer_key, draft.shard_root) == (NOBODY, OPEN_ROOT)
                contents = encode(Solicitation(draft, 1, 8, now_ms + 10_000, contact))
                await market.pubsub.publish(topic_of(draft.criteria), contents)
                await net.pass_seconds(15)
            statuses = [(await farmer.farmer.status()).market for farmer in net.farmers[:7]]
            assert all(one is not None and one.unreachable <= 1 for one in statuses)
            assert sum(one.unreachable for one in statuses if one) >= 5
            assert all(one.passed_over.get("RATE_LIMITED", 0) >= 3 for one in statuses if one and one.unreachable)
            assert victim.farmer._parts.tally.requests[MarketMethod.OFFER] == before

    run(main(), within_seconds=600)


def test_a_false_draft_silences_no_renter_that_dealt_before() -> None:
    async def main() -> None:
        async with town(8) as net:
            await settle(net)
            market, clock = market_of(net), net.renter.clock
            own = net.renter.endpoint.contact
            assert own is not None
            assert len((await market.solicit(MIB, 8, offers_wanted=8)).kept) >= 5
            # A farmer's key, as anybody's: it says that it is where the renter is.
            liar = net.farmers[7]
            for turn in range(5):
                now_ms = clock.now_ms()
                contact = sign_contact(
                    liar.key,
                    network=net.world.network_id,
                    addresses=own.contact.addresses,
                    sequence=now_ms,
                    issued_ms=now_ms,
                )
                rules = replace(net.renter.agent.rules, renter_key=liar.key.public_key)
                draft = market_draft(rules, MIB, bytes((1, 2, 2, 2)), Prices(0, turn), now_ms)
                contents = encode(Solicitation(draft, 1, 8, now_ms + 10_000, contact))
                await liar.farmer._stall.pubsub.publish(topic_of(draft.criteria), contents)
                await net.pass_seconds(15)
            tallies = [farmer.farmer._stall.desk.tally for farmer in net.farmers[:7]]
            assert sum(one.unreachable for one in tallies) >= 1
            assert len((await market.solicit(MIB, 8, offers_wanted=8)).kept) >= 5

    run(main(), within_seconds=600)


def test_a_stranger_hands_in_its_own_words_only() -> None:
    async def main() -> None:
        async with town(4) as net:
            await settle(net)
            renter, farmer = net.renter, net.farmers[0]
            farmer.farmer._stall.pubsub.quasar.drop(renter.key.node_id)
            levels = await market_of(net).pubsub.ask(farmer.peer)
            assert levels[0].bit_count()
            strange = sign_publication(
                net.farmers[1].key,
                network=net.world.network_id,
                topic=b"\x0f\x01\x02\x02\x02",
                contents=b"",
                now_ms=renter.clock.now_ms(),
            )
            request = encode(Publish(strange, 3, ()))
            with pytest.raises(RefusedError) as refused:
                await renter.endpoint.call(farmer.peer, QuasarMethod.PUBLISH, request, deadline_seconds=10)
            assert refused.value.code is ReasonCode.NOT_A_NEIGHBOUR
            await renter.endpoint.call(farmer.peer, QuasarMethod.SUBSCRIBE, encode(Subscribe()), deadline_seconds=10)
            assert renter.key.node_id not in farmer.farmer._stall.pubsub.quasar.neighbours

    run(main(), within_seconds=600)


def test_a_renter_that_cannot_be_called_is_told_so() -> None:
    async def main() -> None:
        async with town(2) as net:
            net.renter.endpoint.contact = None
            with pytest.raises(UserError, match="listen"):
                await market_of(net).solicit(MIB, 1)

    run(main(), within_seconds=60)


def test_a_renter_publishes_no_more_than_others_would_take() -> None:
    async def main() -> None:
        async with town(2) as net:
            await settle(net, 2)
            market = market_of(net)
            for _ in range(market.pubsub.quasar.rules.originator_per_minute):
                await market.solicit(MIB, 1, offers_wanted=1, seconds=1)
            with pytest.raises(RefusedError) as refused:
                await market.solicit(MIB, 1, offers_wanted=1, seconds=1)
            assert refused.value.code is ReasonCode.RATE_LIMITED

    run(main(), within_seconds=600)


def test_prices_differ_and_the_cheaper_get_more() -> None:
    async def main() -> None:
        generous = stall(prices=Prices(100, 500))
        others = dict.fromkeys(range(6, 12), generous)
        async with town(12, others=others, most=Prices(1_000, 5_000)) as net:
            await settle(net)
            result = await market_of(net).solicit(MIB, 200, offers_wanted=12, seconds=6)
            assert len(result.kept) == 12
            cheap = {farmer.node_id for farmer in net.farmers[6:]}
            await put_each(net, {f"{number}": net.dice(20_000) for number in range(20)})
            made = Counter(farmer in cheap for farmer, _ in placements(net))
            assert made[True] > made[False]

    run(main(), within_seconds=3600)
