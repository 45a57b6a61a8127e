"""A farmer on the network, honest callers: the whole life of a contract, resumption, restart, an orderly end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from farm_network import Countryside, Farm
from farm_samples import GIB, root_of, settings, shard_bytes
from stook.codec import decode, encode
from stook.contracts.announcement import verify_announcement
from stook.contracts.contract import Contract
from stook.contracts.grant import Operation
from stook.contracts.lifecycle import ContractState
from stook.contracts.messages import (
    CapacityReply,
    CapacityRequest,
    Consign,
    ConsignReady,
    ContactsReply,
    ContactsRequest,
    Method,
    RenewReply,
    Retrieve,
)
from stook.contracts.negotiation import DAY_MS, HOUR_MS
from stook.contracts.receipt import SignedStorageReceipt, verify_erase_receipt, verify_storage_receipt
from stook.contracts.renewal import next_revision, renewed_contract, sign_renewal
from stook.errors import PeerError, ReasonCode, RefusedError
from stook.farmer.settings import TransferLimits
from stook.merkle import UNIT_BYTES, leaves_of
from stook.storage.contract_store import SqliteContractStore
from stook.storage.shard_store import FileShardStore
from wire_samples import run_virtual

SIZE = 8 * UNIT_BYTES
DATA = shard_bytes(SIZE)
SMALL_BLOCKS = settings(GIB, transfers=TransferLimits(block_bytes=UNIT_BYTES))


async def until(condition: object, turns: int = 10_000) -> None:
    """Let the loop turn until `condition` holds."""
    for _ in range(turns):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


def test_the_whole_life_of_a_contract() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter = await land.farm(), land.caller(1)
            contract = await renter.agree(farm, DATA)
            assert (await farm.status()).contracts == {"reserved": 1, "active": 0, "lost": 0}
            receipt = await renter.consign(farm, contract, DATA)
            verify_storage_receipt(receipt, contract)

            page = await renter.listed(farm)
            assert [(one.contract, one.stored) for one in page.contracts] == [(contract, True)]
            leaves, fetched = await renter.retrieve(farm, renter.grant(contract, Operation.RETRIEVE))
            assert fetched == DATA
            assert leaves == b"".join(leaves_of(memoryview(DATA)))

            terms = next_revision(contract, end_ms=contract.terms.end_ms + 10 * DAY_MS)
            asked = sign_renewal(terms, renter.key)
            reply = decode(RenewReply, await renter.call(farm, Method.RENEW, asked))
            longer = renewed_contract(asked, reply.farmer_signature)
            assert decode(RenewReply, await renter.call(farm, Method.RENEW, asked)) == reply, "asked twice, one answer"
            assert (await renter.listed(farm)).contracts[0].contract == longer
            assert farm.shards.find(root_of(DATA)).contract == encode(longer)
            assert await renter.fetch(farm, longer) == DATA

            (answer,) = (await renter.cancel(farm, longer)).answers
            assert answer.receipt is not None
            verify_erase_receipt(answer.receipt, longer)
            assert (await renter.cancel(farm, longer)).answers == (answer,), "asked twice, one answer"
            assert farm.shards.find(root_of(DATA)) is None
            status = await farm.status()
            assert status.stored_bytes == status.reserved_bytes == 0
            assert (status.shards_in, status.shards_out, status.bytes_in, status.bytes_out) == (1, 2, SIZE, 2 * SIZE)
            assert status.as_json()["refusals"] == {}

    run_virtual(scene())


def test_a_batch_is_answered_draft_by_draft_and_again_alike() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter = await land.farm(farm_settings=settings(2 * SIZE)), land.caller(1)
            drafts = [renter.draft(farm, shard_bytes(SIZE, i)) for i in range(4)]
            drafts[1] = renter.draft(farm, shard_bytes(SIZE, 9), network="elsewhere")
            first = await renter.claim(farm, *drafts)
            assert [answer.code for answer in first.answers] == [0, ReasonCode.WRONG_NETWORK, 0, ReasonCode.NO_SPACE]
            assert await renter.claim(farm, *drafts) == first
            assert (await farm.status()).reserved_bytes == 2 * SIZE
            assert (await farm.status()).refusals == {"NO_SPACE": 2, "WRONG_NETWORK": 2}

    run_virtual(scene())


def test_claims_at_the_same_moment_share_one_capacity() -> None:
    async def scene() -> None:
        async def slow(work):  # type: ignore[no-untyped-def]
            await asyncio.sleep(0.01)
            return work()

        async with Countryside() as land:
            farm = await land.farm(farm_settings=settings(3 * SIZE), offload=slow)
            callers = [land.caller(number) for number in (1, 3, 4)]
            replies = await asyncio.gather(
                *(
                    caller.claim(farm, *(caller.draft(farm, shard_bytes(SIZE, 10 * n + i)) for i in range(2)))
                    for n, caller in enumerate(callers)
                )
            )
            codes = [answer.code for reply in replies for answer in reply.answers]
            assert codes.count(0) == 3
            assert (await farm.status()).reserved_bytes == 3 * SIZE

    run_virtual(scene())


def test_consigning_again_after_the_receipt_is_answered_with_the_receipt() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter = await land.farm(), land.caller(1)
            contract = await renter.store(farm, DATA)
            request = encode(Consign(contract, renter.grant(contract, Operation.CONSIGN)))
            reply = await renter.endpoint.call(farm.peer, Method.CONSIGN, request, deadline_seconds=10)
            ready = decode(ConsignReady, reply)
            assert ready.first_unit == SIZE // UNIT_BYTES
            assert ready.receipt is not None
            verify_storage_receipt(ready.receipt, contract)

    run_virtual(scene())


def test_a_transfer_that_broke_off_goes_on_at_the_first_missing_unit() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter = await land.farm(farm_settings=SMALL_BLOCKS), land.caller(1)
            contract = await renter.agree(farm, DATA)
            request = encode(Consign(contract, renter.grant(contract, Operation.CONSIGN)))
            async with renter.endpoint.exchange(farm.peer, Method.CONSIGN, request, deadline_seconds=60) as exchange:
                assert await renter.begin_consign(exchange, DATA, 3 * UNIT_BYTES + 100) == 0
                await until(lambda: farm.shards.resumable_units(root_of(DATA), SIZE) == 3)
            await until(lambda: not farm.farmer._parts.gate.busy(root_of(DATA)))
            request = encode(Consign(contract, renter.grant(contract, Operation.CONSIGN)))
            async with renter.endpoint.exchange(farm.peer, Method.CONSIGN, request, deadline_seconds=60) as exchange:
                assert await renter.begin_consign(exchange, DATA, SIZE) == 3
                verify_storage_receipt(decode(SignedStorageReceipt, await exchange.next_reply()), contract)
            assert await renter.fetch(farm, contract) == DATA
            assert (await farm.status()).bytes_in == SIZE

    run_virtual(scene())


def test_a_sender_that_comes_back_need_not_wait_for_its_dead_transfer() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter = await land.farm(farm_settings=SMALL_BLOCKS), land.caller(1)
            contract = await renter.agree(farm, DATA)
            request = encode(Consign(contract, renter.grant(contract, Operation.CONSIGN)))
            async with renter.endpoint.exchange(farm.peer, Method.CONSIGN, request, deadline_seconds=60) as stalled:
                await renter.begin_consign(stalled, DATA, UNIT_BYTES)
                await until(lambda: farm.shards.resumable_units(root_of(DATA), SIZE) == 1)
                await renter.consign(farm, contract, DATA)
                with pytest.raises(PeerError):
                    await stalled.next_reply()
            assert await renter.fetch(farm, contract) == DATA

    run_virtual(scene())


def test_ranges_and_resumed_downloads_stay_within_one_budget() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter = await land.farm(farm_settings=SMALL_BLOCKS), land.caller(1)
            contract = await renter.store(farm, DATA)
            grant = renter.grant(contract, Operation.RETRIEVE)
            assert (await renter.retrieve(farm, grant, 2, 5))[1] == DATA[2 * UNIT_BYTES : 5 * UNIT_BYTES]
            assert (await renter.retrieve(farm, grant, 5, 8))[1] == DATA[5 * UNIT_BYTES :]
            assert (await renter.retrieve(farm, grant, 0, 2))[1] == DATA[: 2 * UNIT_BYTES]
            with pytest.raises(RefusedError) as refused:
                await renter.retrieve(farm, grant, 7, 8)
            assert refused.value.code is ReasonCode.GRANT_EXHAUSTED

    run_virtual(scene())


def test_what_was_not_sent_is_given_back_to_the_budget() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter = await land.farm(farm_settings=SMALL_BLOCKS), land.caller(1)
            big = shard_bytes(64 * UNIT_BYTES, 5)
            contract = await renter.store(farm, big)
            grant = renter.grant(contract, Operation.RETRIEVE, budget_bytes=len(big) + 40 * UNIT_BYTES)

            request = encode(Retrieve(grant, 0, 64))
            async with renter.endpoint.exchange(farm.peer, Method.RETRIEVE, request, deadline_seconds=60) as exchange:
                await exchange.next_reply()
            await until(lambda: farm.farmer._parts.lanes.running == 0)
            assert (await farm.status()).bytes_out < 40 * UNIT_BYTES, "the test means little when all was sent"
            assert (await renter.retrieve(farm, grant))[1] == big

    run_virtual(scene())


def test_reservations_lapse_and_contracts_end() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter = await land.farm(), land.caller(1)
            stored = await renter.store(farm, DATA)
            waiting = await renter.agree(farm, shard_bytes(SIZE, 2))
            farm.clock.skew_ms += 2 * HOUR_MS
            assert await farm.farmer.reap() == 1
            assert farm.contracts.get(waiting.contract_id) is None
            farm.clock.skew_ms += 40 * DAY_MS
            assert await farm.farmer.reap() == 1
            assert farm.shards.find(stored.terms.shard_root) is None
            assert (await farm.status()).reaped == 2

    run_virtual(scene())


def test_a_listing_comes_in_pages_and_shows_only_ones_own() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter, other = await land.farm(), land.caller(1), land.caller(3)
            mine = {(await renter.agree(farm, shard_bytes(UNIT_BYTES, i))).contract_id for i in range(5)}
            await other.store(farm, shard_bytes(UNIT_BYTES, 50))
            seen: list[bytes] = []
            more = True
            while more:
                page = await renter.listed(farm, after=seen[-1] if seen else b"", limit=2)
                seen += [one.contract.contract_id for one in page.contracts]
                assert not any(one.stored for one in page.contracts)
                more = page.more
            assert seen == sorted(mine)

    run_virtual(scene())


def test_ownership_moves_with_both_signatures() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter, heir = await land.farm(), land.caller(1), land.caller(3)
            contract = await renter.store(farm, DATA)
            terms = next_revision(contract, renter_key=heir.key.public_key)
            asked = sign_renewal(terms, heir.key, renter.key)
            reply = decode(RenewReply, await heir.call(farm, Method.RENEW, asked))
            inherited = renewed_contract(asked, reply.farmer_signature)
            assert await heir.fetch(farm, inherited) == DATA
            with pytest.raises(RefusedError) as refused:
                await renter.fetch(farm, contract)
            assert refused.value.code is ReasonCode.GRANT_INVALID
            (answer,) = (await renter.cancel(farm, contract)).answers
            assert answer.code == ReasonCode.NOT_YOUR_CONTRACT
            assert not (await renter.listed(farm)).contracts

    run_virtual(scene())


def test_farmers_tell_seeds_and_seeds_tell_others() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            seed = await land.farm(5)
            farms = [await land.farm(number, seeds=(seed.peer,)) for number in (2, 6)]
            for farm in farms:
                assert await farm.farmer.announce() == 1
            renter = land.caller(1)
            reply = await renter.call(seed, Method.CONTACTS, ContactsRequest(10))
            known = decode(ContactsReply, reply).announcements
            assert {one.node_id for one in known} == {farm.key.node_id for farm in (seed, *farms)}
            for one in known:
                verify_announcement(one, network=one.announcement.contact.contact.network, now_ms=renter.clock.now_ms())
            assert (
                len(decode(ContactsReply, await renter.call(seed, Method.CONTACTS, ContactsRequest(1))).announcements)
                == 1
            )
            own = decode(CapacityReply, await renter.call(farms[0], Method.CAPACITY, CapacityRequest())).announcement
            assert own.announcement.free_bytes == GIB
            assert (await farms[0].status()).announced_ms is not None

    run_virtual(scene())


def test_a_seed_that_is_away_stops_nobody() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            seed = await land.farm(5)
            await seed.endpoint.close(grace_seconds=0)
            farm = await land.farm(2, seeds=(seed.peer,))
            assert await farm.farmer.announce() == 0
            assert (await farm.status()).announced_ms is None

    run_virtual(scene())


def test_stopping_refuses_new_work_and_lets_transfers_finish() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter = await land.farm(farm_settings=SMALL_BLOCKS), land.caller(1)
            contract = await renter.agree(farm, DATA)
            request = encode(Consign(contract, renter.grant(contract, Operation.CONSIGN)))
            async with renter.endpoint.exchange(farm.peer, Method.CONSIGN, request, deadline_seconds=60) as exchange:
                await renter.begin_consign(exchange, DATA, UNIT_BYTES)
                stopping = asyncio.create_task(farm.farmer.stop(grace_seconds=30))
                await until(lambda: not farm.farmer._accepting)
                with pytest.raises(RefusedError) as refused:
                    await renter.claim(farm, renter.draft(farm, shard_bytes(SIZE, 2)))
                assert refused.value.code is ReasonCode.SHUTTING_DOWN
                assert refused.value.retryable
                await exchange.send(memoryview(DATA)[UNIT_BYTES:])
                verify_storage_receipt(decode(SignedStorageReceipt, await exchange.next_reply()), contract)
            assert await stopping
            assert not (await farm.status()).accepting

    run_virtual(scene())


def test_stopping_does_not_wait_for_ever() -> None:
    async def scene() -> None:
        async with Countryside() as land:
            farm, renter = await land.farm(farm_settings=SMALL_BLOCKS), land.caller(1)
            contract = await renter.agree(farm, DATA)
            request = encode(Consign(contract, renter.grant(contract, Operation.CONSIGN)))
            async with renter.endpoint.exchange(farm.peer, Method.CONSIGN, request, deadline_seconds=60) as exchange:
                await renter.begin_consign(exchange, DATA, UNIT_BYTES)
                assert not await farm.farmer.stop(grace_seconds=2)

    run_virtual(scene())


def disk_stores(tmp_path: Path) -> tuple[FileShardStore, SqliteContractStore]:
    return FileShardStore(tmp_path / "shards"), SqliteContractStore(tmp_path / "contracts.db")


@pytest.mark.parametrize("killed_before", ["publish", "put", "receipt"])
def test_a_farmer_killed_while_it_stores_keeps_every_receipted_shard(tmp_path: Path, killed_before: str) -> None:
    async def first_life() -> tuple[Contract, Contract]:
        shards, contracts = disk_stores(tmp_path)
        with shards, contracts:
            async with Countryside() as land:
                farm, renter = (
                    await land.farm(shards=shards, contracts=contracts, farm_settings=SMALL_BLOCKS),
                    land.caller(1),
                )
                receipted = await renter.store(farm, shard_bytes(SIZE, 7))
                contract = await renter.agree(farm, DATA)
                _die_before(killed_before, farm)
                with pytest.raises(PeerError):
                    await renter.consign(farm, contract, DATA)
                land.world.errors.clear()
        return receipted, contract

    def _die_before(step: str, farm: Farm) -> None:
        def die(*args: object, **kwargs: object) -> None:
            raise OSError("killed")

        if step == "publish":
            real = farm.shards.open_writer

            def open_writer(*args: object) -> object:
                writer = real(*args)
                writer.publish = die
                return writer

            patch.setattr(farm.shards, "open_writer", open_writer)
        elif step == "put":
            patch.setattr(farm.contracts, "put", die)
        else:
            patch.setattr("stook.farmer.transfers.sign_storage_receipt", die)

    async def second_life(receipted: Contract, contract: Contract) -> None:
        shards, contracts = disk_stores(tmp_path)
        with shards, contracts:
            async with Countryside() as land:
                farm, renter = await land.farm(shards=shards, contracts=contracts), land.caller(1)
                assert await renter.fetch(farm, receipted) == shard_bytes(SIZE, 7)
                held = contracts.get(contract.contract_id)
                assert held is not None
                assert (held.state is ContractState.ACTIVE) == (killed_before != "publish")
                receipt = await renter.consign(farm, contract, DATA)
                verify_storage_receipt(receipt, contract)
                assert (await farm.status()).bytes_in == 0, "every unit had been kept"
                assert await renter.fetch(farm, contract) == DATA
                assert (await farm.status()).stored_bytes == 2 * SIZE

    with pytest.MonkeyPatch.context() as patch:
        made = run_virtual(first_life())
    run_virtual(second_life(*made))
