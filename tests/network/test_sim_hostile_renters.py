"""Renters without scruples against a real farmer: it refuses with the right reason and stays within its bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from stook.codec import decode, encode
from stook.contracts.grant import Operation, attenuate
from stook.contracts.lifecycle import ContractState
from stook.contracts.messages import Consign, ConsignReady
from stook.contracts.negotiation import HOUR_MS
from stook.errors import DeadlineError, PeerError, ReasonCode, RefusedError
from stook.farmer.admission import FarmerTerms
from stook.merkle import UNIT_BYTES
from stook.sim.factories import farmer_settings
from stook.sim.hostile_renter import HostileRenter
from stook.sim.loop import run
from stook.sim.nodes import SimFarmer
from stook.sim.testnet import Testnet

MIB = 1 << 20


@asynccontextmanager
async def scene(seed: int = 5, **changes: object) -> AsyncIterator[tuple[Testnet, HostileRenter, SimFarmer, SimFarmer]]:
    """A network, a hostile renter on it, and two of its farmers."""
    async with Testnet(farmers=2, seed=seed, **changes) as net:
        villain = HostileRenter(net.world, "villain")
        try:
            yield net, villain, *net.farmers
        finally:
            await villain.close()


async def refused(work: object) -> ReasonCode:
    with pytest.raises(RefusedError) as caught:
        await work
    return caught.value.code


def test_claims_never_filled_are_bounded_and_lapse():
    terms = FarmerTerms(max_unfilled_bytes_per_renter=4 * MIB)

    async def main() -> None:
        async with scene(settings=farmer_settings(16 * MIB, terms=terms)) as (net, villain, farmer, _):
            drafts = await villain.drafts(farmer, [villain.goods(MIB) for _ in range(10)])
            answers = await villain.claim(farmer, drafts)
            assert [answer.code for answer in answers] == [0] * 4 + [ReasonCode.RESERVED_TOO_MUCH] * 6
            status = await farmer.farmer.status()
            assert status.reserved_bytes == 4 * MIB
            await asyncio.sleep(HOUR_MS / 1000 + 1)
            await net.step_chores("reaper")
            status = await farmer.farmer.status()
            assert status.reserved_bytes == 0
            assert status.available_bytes == 16 * MIB
            assert farmer.contracts.totals().reserved_count == 0

    run(main(), within_seconds=10_000)


def test_many_names_do_not_pass_the_capacity():
    async def main() -> None:
        async with scene(settings=farmer_settings(4 * MIB)) as (net, _, farmer, _):
            accepted = 0
            for number in range(6):
                puppet = HostileRenter(net.world, f"puppet-{number}")
                answers = await puppet.claim(farmer, await puppet.drafts(farmer, [puppet.goods(MIB)]))
                accepted += answers[0].code == 0
                await puppet.close()
            assert accepted == 4

    run(main(), within_seconds=100)


def test_other_bytes_than_agreed_are_not_stored():
    async def main() -> None:
        async with scene() as (_, villain, farmer, _):
            goods, others = villain.goods(4 * UNIT_BYTES), villain.goods(4 * UNIT_BYTES)
            contract = await villain.contract(farmer, goods)
            grant = villain.grant(contract, Operation.CONSIGN)
            code = await refused(villain.consign(farmer, contract, grant, others.leaves, others.data))
            assert code is ReasonCode.HASH_MISMATCH
            code = await refused(villain.consign(farmer, contract, grant, goods.leaves, others.data))
            assert code is ReasonCode.HASH_MISMATCH
            assert farmer.stored_bytes == 0

    run(main(), within_seconds=100)


def test_a_grant_is_good_for_its_budget_and_no_more():
    async def main() -> None:
        async with scene() as (_, villain, farmer, _):
            goods = villain.goods(4 * UNIT_BYTES)
            contract = await villain.bring(farmer, goods)
            grant = villain.grant(contract, Operation.RETRIEVE, budget_bytes=6 * UNIT_BYTES)
            assert await villain.retrieve(farmer, grant, units=4) == goods.data
            assert await refused(villain.retrieve(farmer, grant, units=4)) is ReasonCode.GRANT_EXHAUSTED
            assert await villain.retrieve(farmer, grant, first_unit=2, units=2) == goods.data[2 * UNIT_BYTES :]
            assert await refused(villain.retrieve(farmer, grant)) is ReasonCode.GRANT_EXHAUSTED

    run(main(), within_seconds=100)


def test_children_of_a_grant_share_its_budget():
    async def main() -> None:
        async with scene() as (net, villain, farmer, _):
            puppets = [HostileRenter(net.world, f"puppet-{number}") for number in range(3)]
            contract = await villain.bring(farmer, villain.goods(4 * UNIT_BYTES))
            parent = villain.grant(contract, Operation.RETRIEVE, budget_bytes=8 * UNIT_BYTES)
            children = [
                attenuate(parent, villain.key, grantee_key=puppet.key.public_key, serial=villain.dice(16))
                for puppet in puppets
            ]
            for puppet, child in zip(puppets[:2], children, strict=False):
                await puppet.retrieve(farmer, child, units=4)
            assert await refused(puppets[2].retrieve(farmer, children[2])) is ReasonCode.GRANT_EXHAUSTED
            for puppet in puppets:
                await puppet.close()

    run(main(), within_seconds=100)


def test_a_grant_survives_no_restart_with_a_fresh_budget():
    async def main() -> None:
        async with scene() as (net, villain, farmer, _):
            contract = await villain.bring(farmer, villain.goods(2 * UNIT_BYTES))
            grant = villain.grant(contract, Operation.RETRIEVE)
            await villain.retrieve(farmer, grant, units=2)
            await net.restart(farmer.number)
            assert await refused(villain.retrieve(farmer, grant)) is ReasonCode.GRANT_EXHAUSTED

    run(main(), within_seconds=100)


def test_nothing_works_at_another_farmer():
    async def main() -> None:
        async with scene() as (_, villain, farmer, other):
            goods = villain.goods()
            contract = await villain.bring(farmer, goods)
            grant = villain.grant(contract, Operation.CONSIGN)
            code = await refused(villain.consign(other, contract, grant, goods.leaves, goods.data))
            assert code is ReasonCode.WRONG_RECIPIENT
            grant = villain.grant(contract, Operation.RETRIEVE)
            assert await refused(villain.retrieve(other, grant)) is ReasonCode.GRANT_WRONG_FARMER
            (answer,) = await villain.claim(other, [contract.terms])
            assert answer.code == ReasonCode.WRONG_RECIPIENT
            assert (await villain.cancel(other, contract)).code == ReasonCode.UNKNOWN_CONTRACT
            assert other.stored_bytes == 0

    run(main(), within_seconds=100)


def test_nothing_of_one_renter_works_for_another():
    async def main() -> None:
        async with scene() as (net, villain, farmer, _):
            victim = HostileRenter(net.world, "victim")
            goods = victim.goods()
            contract = await victim.bring(farmer, goods)
            stolen = victim.grant(contract, Operation.RETRIEVE)
            assert await refused(villain.retrieve(farmer, stolen)) is ReasonCode.GRANT_WRONG_GRANTEE
            assert (await villain.cancel(farmer, contract)).code == ReasonCode.NOT_YOUR_CONTRACT
            (answer,) = await villain.claim(farmer, [contract.terms])
            assert answer.code == ReasonCode.NOT_YOUR_CONTRACT
            (draft,) = await villain.drafts(farmer, [goods])
            (answer,) = await villain.claim(farmer, [draft])
            assert answer.code == ReasonCode.ALREADY_STORED
            assert await victim.retrieve(farmer, stolen) == goods.data
            await victim.close()

    run(main(), within_seconds=100)


def test_a_grant_for_one_operation_or_an_expired_one_is_refused():
    async def main() -> None:
        async with scene() as (_, villain, farmer, _):
            contract = await villain.bring(farmer, villain.goods())
            wrong = villain.grant(contract, Operation.CONSIGN)
            assert await refused(villain.retrieve(farmer, wrong)) is ReasonCode.GRANT_WRONG_OPERATION
            short = villain.grant(contract, Operation.RETRIEVE, life_ms=1_000)
            await asyncio.sleep(2)
            assert await refused(villain.retrieve(farmer, short)) is ReasonCode.GRANT_EXPIRED

    run(main(), within_seconds=100)


def test_a_sender_that_falls_silent_is_cut_off_and_its_room_comes_back():
    async def main() -> None:
        async with scene() as (_, villain, farmer, _):
            goods = villain.goods(4 * UNIT_BYTES)
            contract = await villain.contract(farmer, goods)
            begun = asyncio.get_running_loop().time()
            with pytest.raises(PeerError) as caught:
                await villain.begin_and_idle(farmer, contract, sent_bytes=100)
            assert not isinstance(caught.value, DeadlineError), "the farmer must end it, not the villain"
            assert asyncio.get_running_loop().time() - begun < 120
            status = await farmer.farmer.status()
            assert status.transfers_running == 0
            await villain.consign(
                farmer, contract, villain.grant(contract, Operation.CONSIGN), goods.leaves, goods.data
            )

    run(main(), within_seconds=2_000)


def test_a_broken_transfer_goes_on_at_the_last_whole_unit():
    async def main() -> None:
        async with scene() as (net, villain, farmer, _):
            goods = villain.goods(16 * UNIT_BYTES)
            contract = await villain.contract(farmer, goods)
            request = encode(Consign(contract, villain.grant(contract, Operation.CONSIGN)))
            async with villain.endpoint.exchange(farmer.peer, "CONSIGN", request, deadline_seconds=100) as exchange:
                await exchange.next_reply()
                await exchange.send(goods.leaves)
                await exchange.send(goods.data[: 5 * UNIT_BYTES + 100])
                await asyncio.sleep(1)
                net.network.reset(farmer.host)
                await asyncio.sleep(1)
            assert farmer.disk.resumable_units(goods.root, len(goods.data)) == 5
            async with villain.endpoint.exchange(farmer.peer, "CONSIGN", request, deadline_seconds=100) as exchange:
                assert decode(ConsignReady, await exchange.next_reply()).first_unit == 5

    run(main(), within_seconds=1_000)


def test_a_hundred_silent_senders_take_bounded_memory_and_leave_room_for_others():
    async def main() -> None:
        async with scene() as (net, villain, farmer, _):
            contracts = [await villain.contract(farmer, villain.goods()) for _ in range(100)]
            codes: list[ReasonCode | None] = []

            async def idle(number: int) -> None:
                try:
                    await villain.begin_and_idle(farmer, contracts[number])
                except RefusedError as error:
                    codes.append(error.code)
                except PeerError:
                    codes.append(None)

            async with asyncio.TaskGroup() as group:
                for number in range(len(contracts)):
                    group.create_task(idle(number))
                await asyncio.sleep(1)
                status = await farmer.farmer.status()
                limits = farmer.settings.transfers
                assert status.transfers_running <= limits.max_transfers
                assert status.transfers_waiting <= limits.max_waiting
                # Somebody honest, meanwhile, waits for a lane and gets one.
                neighbour = HostileRenter(net.world, "neighbour")
                goods = neighbour.goods()
                contract = await neighbour.contract(farmer, goods)
                deal = neighbour.consign(
                    farmer, contract, neighbour.grant(contract, Operation.CONSIGN), goods.leaves, goods.data
                )
                begun = asyncio.get_running_loop().time()
                receipt = await deal
                # The first of the silent ones is cut off after 30 seconds; its lane goes to who has none.
                assert asyncio.get_running_loop().time() - begun < 60
                assert receipt.receipt.size_bytes == UNIT_BYTES
                await neighbour.close()
            assert len(codes) == len(contracts)
            status = await farmer.farmer.status()
            assert (status.transfers_running, status.transfers_waiting) == (0, 0)

    run(main(), within_seconds=5_000)


def test_a_contract_cancelled_twice_gives_one_receipt_and_frees_once():
    async def main() -> None:
        async with scene() as (_, villain, farmer, _):
            contract = await villain.bring(farmer, villain.goods())
            first, again = [await villain.cancel(farmer, contract) for _ in range(2)]
            assert first.receipt is not None
            assert first == again
            assert farmer.stored_bytes == 0
            assert farmer.contracts.get(contract.contract_id) is None
            grant = villain.grant(contract, Operation.RETRIEVE)
            assert await refused(villain.retrieve(farmer, grant)) is ReasonCode.UNKNOWN_CONTRACT

    run(main(), within_seconds=100)


def test_a_lapsed_contract_takes_no_bytes():
    async def main() -> None:
        async with scene() as (net, villain, farmer, _):
            goods = villain.goods()
            contract = await villain.contract(farmer, goods)
            await asyncio.sleep(HOUR_MS / 1000 + 1)
            grant = villain.grant(contract, Operation.CONSIGN)
            code = await refused(villain.consign(farmer, contract, grant, goods.leaves, goods.data))
            assert code is ReasonCode.CONSIGN_TOO_LATE
            await net.step_chores("reaper")
            code = await refused(villain.consign(farmer, contract, grant, goods.leaves, goods.data))
            assert code is ReasonCode.UNKNOWN_CONTRACT
            assert ContractState.ACTIVE not in {held.state for held in farmer.contracts.all()}

    run(main(), within_seconds=10_000)
