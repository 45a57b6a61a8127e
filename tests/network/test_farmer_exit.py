"""A farmer that leaves: what it takes no more, MOVE by honest renters and by others, and the end of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import structs

from contract_samples import NETWORK
from farm_network import Caller, Countryside, Farm, public
from farm_samples import GIB, settings, shard_bytes
from stook.codec import encode
from stook.contracts.contract import Contract
from stook.contracts.grant import Operation
from stook.contracts.lifecycle import ContractState
from stook.contracts.messages import ConsignReady, Method
from stook.contracts.move import MAX_ORDERS, Move, MoveOrder
from stook.contracts.negotiation import DAY_MS, HOUR_MS, countersign, sign_offer
from stook.contracts.receipt import (
    SignedStorageReceipt,
    sign_storage_receipt,
    verify_erase_receipt,
    verify_storage_receipt,
)
from stook.contracts.renewal import next_revision, sign_renewal
from stook.contracts.verdict import Verdict
from stook.errors import ReasonCode, RefusedError
from stook.farmer.settings import TransferLimits
from stook.identity.contact import sign_contact
from stook.merkle import UNIT_BYTES
from stook.storage.exit_ports import MoveState
from wire_samples import listening, run_virtual

SIZE = 8 * UNIT_BYTES
SMALL_BLOCKS = settings(GIB, transfers=TransferLimits(block_bytes=UNIT_BYTES))


class Scene:
    """A leaving farm with three shards, another farm, a renter, a stranger."""

    def __init__(self, land: Countryside, old: Farm, new: Farm, renter: Caller, stranger: Caller) -> None:
        self.land, self.old, self.new, self.renter, self.stranger = land, old, new, renter, stranger
        self.contracts: list[Contract] = []

    @property
    def first(self) -> Contract:
        return self.contracts[0]

    async def leave(self, days: int = 30) -> int:
        by_ms = self.renter.clock.now_ms() + days * DAY_MS
        self.old.contracts.exits.set_leaving(by_ms)
        await self.old.farmer.reap()
        return by_ms

    async def order(self, seed: int = 0, **grant: Any) -> MoveOrder:
        """Claim at the new farm, and make the order."""
        new = await self.renter.agree(self.new, shard_bytes(SIZE, seed))
        return self.renter.order(self.contracts[seed], new, self.new, by=self.old, **grant)


def leaving(play: Callable[[Scene], Awaitable[None]], *, stays: bool = False, **farm: Any) -> None:
    async def autumn() -> None:
        async with Countryside() as land:
            farms = await land.farm(2, farm_settings=SMALL_BLOCKS), await land.farm(6, **farm)
            scene = Scene(land, *farms, land.caller(1), land.caller(3))
            for one in farms:
                one.farmer.chores["move"].pause()
            for seed in range(3):
                scene.contracts.append(await scene.renter.store(scene.old, shard_bytes(SIZE, seed)))
            if not stays:
                await scene.leave()
            await play(scene)

    run_virtual(autumn())


async def refused(work: Awaitable[Any], code: ReasonCode) -> None:
    with pytest.raises(RefusedError) as told:
        await work
    assert told.value.code is code, told.value


def test_a_leaving_farmer_says_so_and_takes_nothing_new() -> None:
    async def play(scene: Scene) -> None:
        old, renter = scene.old, scene.renter
        reserved = await renter.agree(old, shard_bytes(SIZE, 7))
        assert (await renter.heartbeat(old)).leaving_by_ms == 0
        by_ms = await scene.leave()
        assert (await renter.heartbeat(old)).leaving_by_ms == by_ms
        assert (await scene.stranger.heartbeat(old)).leaving_by_ms == by_ms
        assert (await old.farmer.announcement()).announcement.free_bytes == 0
        (answer,) = (await renter.claim(old, renter.draft(old, shard_bytes(SIZE, 8)))).answers
        assert answer.code == ReasonCode.LEAVING
        await renter.consign(old, reserved, shard_bytes(SIZE, 7))  # what it promised it takes
        longer = next_revision(scene.first, end_ms=scene.first.terms.end_ms + DAY_MS)
        await refused(renter.call(old, Method.RENEW, sign_renewal(longer, renter.key)), ReasonCode.LEAVING)
        old.contracts.exits.set_leaving(0)
        await old.farmer.reap()
        await renter.store(old, shard_bytes(SIZE, 8))
        assert (await old.farmer.announcement()).announcement.free_bytes > 0

    leaving(play, stays=True)


def test_a_whole_exit() -> None:
    async def play(scene: Scene) -> None:
        old, new, renter = scene.old, scene.new, scene.renter
        orders = [await scene.order(seed) for seed in range(3)]
        answers = await renter.move(old, *orders)
        assert [(answer.code, answer.receipt) for answer in answers] == [(0, None)] * 3
        assert (await old.status()).exit.moves_waiting == 3
        assert await old.farmer.move() == 3
        moved = await renter.move(old, *orders)
        for order, answer in zip(orders, moved, strict=True):
            assert answer.receipt is not None
            verify_storage_receipt(answer.receipt, order.contract)
        status = (await old.status()).exit
        assert (status.contracts_left, status.moves_done, status.finished) == (3, 3, False)

        settled = await renter.audit_all(new, renter.challenge(new, *(order.contract for order in orders)))
        assert settled.signed.receipt.count(Verdict.PASSED) == settled.signed.receipt.lines
        for contract, answer in zip(scene.contracts, (await renter.cancel(old, *scene.contracts)).answers, strict=True):
            assert answer.receipt is not None
            verify_erase_receipt(answer.receipt, contract)
        for seed, order in enumerate(orders):
            assert await renter.fetch(new, order.contract) == shard_bytes(SIZE, seed)
        status = (await old.status()).exit
        assert (status.contracts_left, status.moves_done, status.finished) == (0, 0, True)

    leaving(play)


def test_orders_that_a_farmer_does_not_take() -> None:
    async def play(scene: Scene) -> None:
        old, renter, stranger = scene.old, scene.renter, scene.stranger
        good = await scene.order()
        other = await renter.agree(scene.new, shard_bytes(SIZE, 9))
        theirs = await stranger.agree(scene.new, shard_bytes(SIZE, 1))
        terms = good.contract.terms

        async def answered(order: MoveOrder, code: ReasonCode, caller: Caller = renter) -> None:
            (answer,) = await caller.move(old, order)
            assert answer.code == code, answer

        def by(**changes: Any) -> MoveOrder:
            return structs.replace(good, **changes)

        await answered(good, ReasonCode.NOT_YOUR_CONTRACT, stranger)
        await answered(by(contract_id=bytes(32)), ReasonCode.UNKNOWN_CONTRACT)
        await answered(by(contract=other), ReasonCode.BAD_TERMS)
        await answered(by(contract_id=scene.contracts[1].contract_id, contract=theirs), ReasonCode.BAD_TERMS)
        await answered(by(contract=scene.first), ReasonCode.BAD_TERMS)  # to itself
        half = structs.replace(good.contract, farmer_signature=bytes(64))
        await answered(by(contract=half), ReasonCode.BAD_SIGNATURE)
        assert old.endpoint.contact is not None
        await answered(by(contact=old.endpoint.contact), ReasonCode.WRONG_IDENTITY)
        forged = structs.replace(good.contact, contact=structs.replace(good.contact.contact, addresses=()))
        await answered(by(contact=forged), ReasonCode.BAD_SIGNATURE)
        for changes, code in (
            ({"grantee_key": public(3)}, ReasonCode.GRANT_WRONG_GRANTEE),
            ({"operation": Operation.RETRIEVE}, ReasonCode.GRANT_WRONG_OPERATION),
            ({"expires_ms": 1}, ReasonCode.GRANT_EXPIRED),
            ({"end_byte": 1}, ReasonCode.GRANT_OUT_OF_RANGE),
        ):
            wrong = renter.order(scene.first, good.contract, scene.new, by=old, **changes)
            await answered(wrong, code)
        await asyncio.sleep(terms.consign_by_ms / 1000 - renter.clock.now_ms() / 1000 + 1)
        await answered(good, ReasonCode.CONSIGN_TOO_LATE)
        assert old.contracts.exits.move_counts().waiting == 0

    leaving(play)


def test_a_farmer_that_stays_moves_nothing() -> None:
    async def play(scene: Scene) -> None:
        (answer,) = await scene.renter.move(scene.old, await scene.order())
        assert answer.code == ReasonCode.NOT_LEAVING

    leaving(play, stays=True)


def test_one_bad_order_spoils_no_other() -> None:
    async def play(scene: Scene) -> None:
        good = await scene.order(1)
        bad = structs.replace(good, contract_id=bytes(32))
        codes = [answer.code for answer in await scene.renter.move(scene.old, bad, good, bad)]
        assert codes == [ReasonCode.UNKNOWN_CONTRACT, 0, ReasonCode.UNKNOWN_CONTRACT]

    leaving(play)


def test_a_new_farmer_that_is_away_is_tried_until_consign_by() -> None:
    async def play(scene: Scene) -> None:
        order = await scene.order()
        await scene.renter.move(scene.old, order)
        await scene.new.farmer.stop(grace_seconds=1)
        assert await scene.old.farmer.move() == 0
        kept = scene.old.contracts.exits.move(scene.first.contract_id)
        assert (kept.state, kept.tries) == (MoveState.WAITING, 1)
        assert await scene.old.farmer.move() == 0
        assert scene.old.contracts.exits.move(scene.first.contract_id).tries == 1  # not before its time
        await scene.new.farmer.start()
        await asyncio.sleep(61)
        assert await scene.old.farmer.move() == 1

    leaving(play)


def test_what_never_arrives_is_given_up_with_a_reason_and_may_go_elsewhere() -> None:
    async def play(scene: Scene) -> None:
        order = await scene.order()
        await scene.renter.move(scene.old, order)
        await scene.new.farmer.stop(grace_seconds=1)
        await scene.old.farmer.move()
        await asyncio.sleep(2 * HOUR_MS / 1000)
        await scene.old.farmer.move()
        (answer,) = await scene.renter.move(scene.old, order)
        assert answer.code == ReasonCode.CONSIGN_TOO_LATE
        third = await scene.land.farm(7)
        new = await scene.renter.agree(third, shard_bytes(SIZE, 0))
        elsewhere = scene.renter.order(scene.first, new, third, by=scene.old)
        (answer,) = await scene.renter.move(scene.old, elsewhere)
        assert (answer.code, answer.receipt) == (0, None)
        assert await scene.old.farmer.move() == 1

    leaving(play)


def test_a_new_farmer_that_refuses_for_good_ends_the_order() -> None:
    async def play(scene: Scene) -> None:
        order = await scene.order()
        await scene.renter.move(scene.old, order)
        await scene.renter.cancel(scene.new, order.contract)
        assert await scene.old.farmer.move() == 0
        (answer,) = await scene.renter.move(scene.old, order)
        assert answer.code == ReasonCode.UNKNOWN_CONTRACT

    leaving(play)


def test_damage_found_on_the_way_is_declared_and_never_sent() -> None:
    async def play(scene: Scene) -> None:
        order = await scene.order()
        await scene.renter.move(scene.old, order)
        scene.old.shards._published[scene.first.terms.shard_root].data[3 * UNIT_BYTES] ^= 1
        assert await scene.old.farmer.move() == 0
        (answer,) = await scene.renter.move(scene.old, order)
        assert answer.code == ReasonCode.SHARD_LOST
        assert scene.old.contracts.get(scene.first.contract_id).state is ContractState.LOST
        assert len((await scene.renter.heartbeat(scene.old)).losses) == 1
        assert scene.new.shards.find(scene.first.terms.shard_root) is None

    leaving(play)


def test_a_contract_cancelled_before_its_turn_takes_its_order_with_it() -> None:
    async def play(scene: Scene) -> None:
        await scene.renter.move(scene.old, await scene.order())
        await scene.renter.cancel(scene.old, scene.first)
        assert scene.old.contracts.exits.move_counts().waiting == 0
        assert await scene.old.farmer.move() == 0

    leaving(play)


def test_a_restart_forgets_nothing() -> None:
    async def play(scene: Scene) -> None:
        await scene.renter.move(scene.old, await scene.order())
        await scene.old.farmer.stop(grace_seconds=1)
        await scene.old.farmer.start()
        assert (await scene.renter.heartbeat(scene.old)).leaving_by_ms > 0
        assert await scene.old.farmer.move() == 1

    leaving(play)


def test_a_shard_that_is_there_already_needs_no_bytes() -> None:
    async def play(scene: Scene) -> None:
        order = await scene.order()
        await scene.renter.consign(scene.new, order.contract, shard_bytes(SIZE, 0))
        before = (await scene.old.status()).bytes_out
        await scene.renter.move(scene.old, order)
        assert await scene.old.farmer.move() == 1
        assert (await scene.old.status()).bytes_out == before

    leaving(play)


class Liar:
    """A new farmer that says what a test wants to CONSIGN."""

    def __init__(self, scene: Scene, number: int) -> None:
        self.node = scene.land.caller(number)
        self.scene = scene
        self.answers: list[bytes] = []
        self.takes = False

    async def order(self) -> MoveOrder:
        """An order that leads here."""
        endpoint, key = self.node.endpoint, self.node.key
        peer = await listening(endpoint)
        now_ms = self.node.clock.now_ms()
        endpoint.contact = sign_contact(
            key, network=NETWORK, addresses=peer.addresses, sequence=now_ms, issued_ms=now_ms
        )
        endpoint.handle(Method.CONSIGN, self.consign)
        first = self.scene.first
        terms = structs.replace(first.terms, farmer_key=key.public_key, consign_by_ms=now_ms + HOUR_MS)
        new = countersign(terms, sign_offer(terms, key), self.scene.renter.key)
        grant = self.scene.renter.grant(new, Operation.CONSIGN, grantee_key=self.scene.old.key.public_key)
        return MoveOrder(first.contract_id, new, grant, endpoint.contact)

    async def consign(self, exchange: Any, payload: bytes) -> None:
        await exchange.reply(self.answers[0])
        if self.takes:
            await exchange.receive_into(memoryview(bytearray(SIZE + 8 * 32)))
        for answer in self.answers[1:]:
            await exchange.reply(answer)


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ("another shard", ReasonCode.UNBOUND_REPLY),
        ("another signature", ReasonCode.BAD_SIGNATURE),
        ("a receipt at once", ReasonCode.BAD_SIGNATURE),
        ("no first unit", ReasonCode.MALFORMED),
        ("garbage", ReasonCode.MALFORMED),
        ("garbage at the end", ReasonCode.MALFORMED),
    ],
)
def test_a_new_farmer_that_lies_ends_the_order_and_harms_nobody(lie: str, code: ReasonCode) -> None:
    async def play(scene: Scene) -> None:
        liar = Liar(scene, 8)
        order = await liar.order()
        key, now_ms = liar.node.key, liar.node.clock.now_ms()
        good = sign_storage_receipt(order.contract.terms, key, now_ms)
        forged = structs.replace(good, signature=scene.renter.key.sign(good.receipt.digest))
        other = structs.replace(good.receipt, shard_root=scene.contracts[1].terms.shard_root)
        swapped = SignedStorageReceipt(other, key.sign(other.digest))
        ready = encode(ConsignReady(0, None))
        liar.answers = {
            "another shard": [ready, encode(swapped)],
            "another signature": [ready, encode(forged)],
            "a receipt at once": [encode(ConsignReady(8, forged))],
            "no first unit": [encode(ConsignReady(99, None))],
            "garbage": [b"garbage"],
            "garbage at the end": [ready, b"garbage"],
        }[lie]
        liar.takes = len(liar.answers) > 1
        await scene.renter.move(scene.old, order)
        assert await scene.old.farmer.move() == 0
        (answer,) = await scene.renter.move(scene.old, order)
        assert answer.code == code, answer
        assert answer.receipt is None
        assert await scene.renter.fetch(scene.old, scene.first) == shard_bytes(SIZE, 0)

    leaving(play)


def test_an_order_that_another_one_replaced_on_the_way_says_nothing_of_it() -> None:
    async def play(scene: Scene) -> None:
        first = await scene.order()
        await scene.renter.move(scene.old, first)
        third = await scene.land.farm(7)
        new = await scene.renter.agree(third, shard_bytes(SIZE, 0))
        second = scene.renter.order(scene.first, new, third, by=scene.old)
        _, (answer,) = await asyncio.gather(scene.old.farmer.move(), scene.renter.move(scene.old, second))
        assert answer.receipt is None
        kept = scene.old.contracts.exits.move(scene.first.contract_id)
        assert kept.order == second
        assert kept.state is MoveState.WAITING

    leaving(play)


def test_the_largest_request_fits_a_message() -> None:
    async def play(scene: Scene) -> None:
        order = await scene.order()
        orders = (structs.replace(order, contact=structs.replace(order.contact)),) * MAX_ORDERS
        largest_contract, largest_grant, largest_contact = 2048, 2560, 4096
        assert len(encode(Move(orders))) < 1 << 20
        assert MAX_ORDERS * (32 + largest_contract + largest_grant + largest_contact) < 1 << 20

    leaving(play)
