"""A farmer that is audited, by honest renters and by others: proofs, counting, grants, receipts, losses, notes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import structs

from farm_network import Caller, Countryside, Farm, key, public
from farm_samples import GIB, settings, shard_bytes
from stook.audits.challenge import SignedChallenge, pages_of, repeat_challenge
from stook.audits.messages import AuditMethod, AuditReceipt, DeclareLoss, LossesNoted
from stook.audits.proof import AnswerKind
from stook.audits.receipt import settle
from stook.codec import decode, encode
from stook.contracts.contract import AuditStrategy, AuditTerms, Contract
from stook.contracts.grant import Operation, attenuate
from stook.contracts.lifecycle import ContractState
from stook.contracts.loss import note_loss, verify_loss
from stook.contracts.messages import Method
from stook.contracts.negotiation import DAY_MS
from stook.contracts.renewal import next_revision, sign_renewal
from stook.contracts.verdict import Verdict
from stook.errors import ReasonCode, RefusedError
from stook.farmer.settings import AuditLimits
from stook.merkle import UNIT_BYTES
from stook.storage.memory import MemoryShardStore
from stook.storage.ports import HeldContract
from wire_samples import run_virtual

SIZE = 8 * UNIT_BYTES
FREE = AuditTerms(AuditStrategy.SAMPLED, DAY_MS, 4)


class Round:
    """A farm with three shards of a renter, a second farm, and a stranger."""

    def __init__(self, land: Countryside, farm: Farm, renter: Caller, stranger: Caller) -> None:
        self.land, self.farm, self.renter, self.stranger = land, farm, renter, stranger
        self.contracts: list[Contract] = []

    @property
    def first(self) -> Contract:
        return self.contracts[0]

    def spoil(self, contract: Contract, unit: int = 0) -> None:
        """One bit of a unit is another on the farmer's disk from now on."""
        self.farm.shards._published[contract.terms.shard_root].data[unit * UNIT_BYTES] ^= 1


def at_a_farm(play: Callable[[Round], Awaitable[None]], **farm: Any) -> None:
    async def evening() -> None:
        async with Countryside() as land:
            scene = Round(land, await land.farm(2, **farm), land.caller(1), land.caller(3))
            for seed in range(3):
                scene.contracts.append(await scene.renter.store(scene.farm, shard_bytes(SIZE, seed), audit=FREE))
            await play(scene)

    run_virtual(evening())


async def refused(work: Awaitable[Any], code: ReasonCode) -> None:
    with pytest.raises(RefusedError) as told:
        await work
    assert told.value.code is code, told.value


# --- rounds ----------------------------------------------------------------------------------------------------------


def test_a_farmer_proves_what_it_holds_and_keeps_the_receipt() -> None:
    async def play(scene: Round) -> None:
        signed = scene.renter.challenge(scene.farm, *scene.contracts, wanted=10)
        settled = await scene.renter.audit_all(scene.farm, signed)
        assert settled.signed.receipt.count(Verdict.PASSED) == settled.signed.receipt.lines
        status = (await scene.farm.status()).audits
        assert (status.pages_served, status.units_proved, status.receipts_kept) == (1, 10, 1)
        (kept,) = scene.farm.contracts.audits.rounds(9)
        assert (kept.digest, kept.leaves, kept.counts) == (signed.challenge.digest, 10, settled.signed.receipt.counts)
        found = scene.farm.contracts.audits.round(kept.digest)
        assert found.receipt == settled.signed
        assert found.lines == settled.lines

    at_a_farm(play)


def test_every_page_is_answered_in_any_order() -> None:
    async def play(scene: Round) -> None:
        big = await scene.renter.store(scene.farm, shard_bytes(64 * UNIT_BYTES, 9))
        signed = scene.renter.challenge(scene.farm, big, *scene.contracts, wanted=70)
        pages = len(pages_of(signed.challenge))
        assert pages > 1
        answers = await asyncio.gather(
            *(scene.renter.audit(scene.farm, signed, page) for page in reversed(range(pages)))
        )
        assert [answer.head.page for answer in answers] == list(reversed(range(pages)))
        assert sum(len(item.units) for answer in answers for item in answer.items) == 70
        await refused(scene.renter.audit(scene.farm, signed, pages), ReasonCode.MALFORMED)

    at_a_farm(play)


def test_only_the_drawn_units_and_the_leaf_list_are_read() -> None:
    class Counting(MemoryShardStore):
        units = leaf_bytes = others = 0

        def read_units(self, root: Any, first_unit: int, into: memoryview) -> int:
            self.units += 1
            assert len(into) <= UNIT_BYTES
            return super().read_units(root, first_unit, into)

        def read_leaves(self, root: Any) -> bytes:
            leaves = super().read_leaves(root)
            self.leaf_bytes += len(leaves)
            return leaves

        def bad_units(self, root: Any) -> list[int]:
            self.others += 1
            return super().bad_units(root)

    shards = Counting()

    async def play(scene: Round) -> None:
        big = await scene.renter.store(scene.farm, shard_bytes(256 * UNIT_BYTES, 9))
        shards.units = shards.leaf_bytes = 0
        await scene.renter.audit_all(scene.farm, scene.renter.challenge(scene.farm, big, wanted=7))
        assert (shards.units, shards.leaf_bytes, shards.others) == (7, 256 * 32, 0)

    at_a_farm(play, shards=shards)


# --- counting --------------------------------------------------------------------------------------------------------


def test_units_beyond_the_free_ones_are_billed_once_for_each_challenge() -> None:
    async def play(scene: Round) -> None:
        first = scene.renter.challenge(scene.farm, scene.first, wanted=3)
        for _ in range(3):
            await scene.renter.audit(scene.farm, first)
        window = (scene.renter.clock.now_ms() - scene.first.terms.begin_ms) // DAY_MS
        audits = scene.farm.contracts.audits
        assert audits.units_used(scene.first.contract_id, window) == 3
        await scene.renter.audit(scene.farm, scene.renter.challenge(scene.farm, scene.first, wanted=5, nonce=2))
        assert audits.units_used(scene.first.contract_id, window) == 8
        assert [one.billed_units for one in audits.rounds(2)] == [4, 0]
        assert (await scene.farm.status()).audits.units_billed == 4

        await asyncio.sleep(DAY_MS / 1000)  # another interval: free units are there again, unused ones lapse
        await scene.renter.audit(scene.farm, scene.renter.challenge(scene.farm, scene.first, wanted=4, nonce=3))
        assert audits.rounds(1)[0].billed_units == 0

    at_a_farm(play)


def test_a_page_is_not_answered_for_ever() -> None:
    async def play(scene: Round) -> None:
        signed = scene.renter.challenge(scene.farm, scene.first)
        for _ in range(3):
            await scene.renter.audit(scene.farm, signed)
        await refused(scene.renter.audit(scene.farm, signed), ReasonCode.RATE_LIMITED)

    at_a_farm(play, farm_settings=settings(GIB, audits=AuditLimits(max_again=2)))


def test_only_so_many_rounds_of_a_renter_are_remembered() -> None:
    async def play(scene: Round) -> None:
        for number in range(5):
            await scene.renter.audit(scene.farm, scene.renter.challenge(scene.farm, scene.first, nonce=number))
        assert len(scene.farm.contracts.audits.rounds(99)) == 2
        await asyncio.sleep(100)
        await scene.farm.farmer.reap()
        assert not scene.farm.contracts.audits.rounds(99)

    at_a_farm(play, farm_settings=settings(GIB, audits=AuditLimits(keep_rounds_per_renter=2, keep_ms=99_000)))


# --- who may ask -----------------------------------------------------------------------------------------------------


def test_whoever_has_grants_may_audit_within_their_budgets() -> None:
    async def play(scene: Round) -> None:
        auditor, renter = scene.stranger, scene.renter
        signed = auditor.challenge(scene.farm, *scene.contracts, wanted=9, renter=renter.key.public_key)
        by_id = {contract.contract_id: contract for contract in scene.contracts}
        asks = signed.challenge.asks
        grants = [
            renter.grant(
                by_id[ask.contract_id],
                Operation.AUDIT,
                grantee_key=auditor.key.public_key,
                budget_bytes=ask.moved_bytes,
            )
            for ask in asks
        ]
        await refused(auditor.audit(scene.farm, signed), ReasonCode.GRANT_INVALID)
        await refused(auditor.audit(scene.farm, signed, 0, grants[::-1]), ReasonCode.GRANT_WRONG_SHARD)
        answer = await auditor.audit(scene.farm, signed, 0, grants)
        assert all(item.kind is AnswerKind.PROOF for item in answer.items)
        await auditor.audit(scene.farm, signed, 0, grants)  # again is free
        another = auditor.challenge(scene.farm, *scene.contracts, wanted=9, nonce=2, renter=renter.key.public_key)
        await refused(auditor.audit(scene.farm, another, 0, grants), ReasonCode.GRANT_EXHAUSTED)

    at_a_farm(play)


def test_an_exhausted_grant_of_one_shard_charges_the_others_nothing() -> None:
    async def play(scene: Round) -> None:
        auditor, renter = scene.stranger, scene.renter
        signed = auditor.challenge(scene.farm, *scene.contracts, wanted=12, renter=renter.key.public_key)
        by_id = {contract.contract_id: contract for contract in scene.contracts}
        asks = signed.challenge.asks
        budgets = [ask.moved_bytes for ask in asks[:-1]] + [asks[-1].moved_bytes - 1]
        grants = [
            renter.grant(
                by_id[ask.contract_id], Operation.AUDIT, grantee_key=auditor.key.public_key, budget_bytes=budget
            )
            for ask, budget in zip(asks, budgets, strict=True)
        ]
        await refused(auditor.audit(scene.farm, signed, 0, grants), ReasonCode.GRANT_EXHAUSTED)
        assert not scene.farm.contracts.audits.rounds(9)
        last = by_id[asks[-1].contract_id]
        better = [*grants[:-1], renter.grant(last, Operation.AUDIT, grantee_key=auditor.key.public_key)]
        await auditor.audit(scene.farm, signed, 0, better)

    at_a_farm(play)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"operation": Operation.RETRIEVE}, ReasonCode.GRANT_WRONG_OPERATION),
        ({"grantee_key": public(1)}, ReasonCode.GRANT_WRONG_GRANTEE),
        ({"expires_ms": 1}, ReasonCode.GRANT_EXPIRED),
        ({"end_byte": 1}, ReasonCode.GRANT_OUT_OF_RANGE),
    ],
)
def test_grants_for_something_else_are_refused(changes: dict[str, Any], code: ReasonCode) -> None:
    async def play(scene: Round) -> None:
        signed = scene.stranger.challenge(scene.farm, scene.first, renter=scene.renter.key.public_key)
        given = {"grantee_key": scene.stranger.key.public_key, "operation": Operation.AUDIT} | changes
        operation = given.pop("operation")
        grant = scene.renter.grant(scene.first, operation, **given)
        await refused(scene.stranger.audit(scene.farm, signed, 0, [grant]), code)

    at_a_farm(play)


def test_an_attenuated_grant_counts_against_every_budget_of_its_chain() -> None:
    async def play(scene: Round) -> None:
        middle, auditor = key(7), scene.stranger
        ask = auditor.challenge(scene.farm, scene.first, wanted=8, renter=scene.renter.key.public_key)
        parent = scene.renter.grant(scene.first, Operation.AUDIT, grantee_key=middle.public_key)
        child = attenuate(parent, middle, grantee_key=auditor.key.public_key, serial=b"c" * 16)
        await auditor.audit(scene.farm, ask, 0, [child])
        sibling = attenuate(parent, middle, grantee_key=auditor.key.public_key, serial=b"d" * 16)
        again = auditor.challenge(scene.farm, scene.first, wanted=1, nonce=2, renter=scene.renter.key.public_key)
        await refused(auditor.audit(scene.farm, again, 0, [sibling]), ReasonCode.GRANT_EXHAUSTED)

    at_a_farm(play)


def test_what_is_not_the_callers_to_ask() -> None:
    async def play(scene: Round) -> None:
        farm, renter, stranger = scene.farm, scene.renter, scene.stranger
        mine = renter.challenge(farm, scene.first)
        await refused(stranger.audit(farm, mine), ReasonCode.WRONG_IDENTITY)  # a stolen challenge
        await refused(stranger.audit(farm, stranger.challenge(farm, scene.first)), ReasonCode.NOT_YOUR_CONTRACT)
        forged = SignedChallenge(structs.replace(mine.challenge, nonce=bytes(32)), mine.signature)
        await refused(renter.audit(farm, forged), ReasonCode.BAD_SIGNATURE)
        elsewhere = structs.replace(mine.challenge, farmer_key=public(9))
        sealed = SignedChallenge(elsewhere, renter.key.sign(elsewhere.digest))
        await refused(renter.audit(farm, sealed), ReasonCode.WRONG_RECIPIENT)
        asks = (structs.replace(mine.challenge.asks[0], size_bytes=SIZE - 1),)
        other = structs.replace(mine.challenge, asks=asks)
        await refused(
            renter.audit(farm, SignedChallenge(other, renter.key.sign(other.digest))), ReasonCode.GRANT_WRONG_SHARD
        )
        await asyncio.sleep(121)
        await refused(renter.audit(farm, mine), ReasonCode.STALE)  # a replay from yesterday
        assert not farm.contracts.audits.rounds(9)

    at_a_farm(play)


def test_a_contract_that_is_not_here_is_unknown_and_leaves_no_trace() -> None:
    async def play(scene: Round) -> None:
        farm, stranger = scene.farm, scene.stranger
        made_up = await stranger.agree(farm, shard_bytes(SIZE, 5))  # reserved, never brought
        answer = await stranger.audit(farm, stranger.challenge(farm, made_up))
        assert [item.kind for item in answer.items] == [AnswerKind.UNKNOWN]
        assert not farm.contracts.audits.rounds(9)
        assert farm.contracts.get(made_up.contract_id).state is ContractState.OFFERED

    at_a_farm(play)


def test_too_many_audits_at_once_are_told_to_come_again() -> None:
    async def play(scene: Round) -> None:
        challenges = [scene.renter.challenge(scene.farm, scene.first, nonce=number) for number in range(6)]
        done = await asyncio.gather(
            *(scene.renter.audit(scene.farm, signed) for signed in challenges), return_exceptions=True
        )
        busy = [one for one in done if isinstance(one, RefusedError)]
        assert busy
        assert {one.code for one in busy} == {ReasonCode.BUSY}
        assert len(busy) < len(done)

    async def slowly(work: Callable[[], Any]) -> Any:
        await asyncio.sleep(0.01)
        return work()

    limits = AuditLimits(max_pages=1, max_waiting=1)
    at_a_farm(play, farm_settings=settings(GIB, audits=limits), offload=slowly)


def test_an_answer_that_would_come_too_late_is_not_given() -> None:
    async def play(scene: Round) -> None:
        signed = scene.renter.challenge(scene.farm, scene.first)
        slow.append(200.0)
        await refused(scene.renter.audit(scene.farm, signed), ReasonCode.STALE)
        slow.clear()
        assert not scene.farm.contracts.audits.rounds(9)

    slow: list[float] = []

    async def sluggish(work: Callable[[], Any]) -> Any:
        done = work()
        await asyncio.sleep(slow[0] if slow else 0)
        return done

    at_a_farm(play, offload=sluggish)


# --- receipts --------------------------------------------------------------------------------------------------------


def test_receipts_that_are_not_the_callers_or_not_whole_are_refused() -> None:
    async def play(scene: Round) -> None:
        farm, renter, stranger = scene.farm, scene.renter, scene.stranger
        signed = renter.challenge(farm, *scene.contracts)
        settled = await renter.audit_all(farm, signed, hand_over=False)
        good = AuditReceipt(settled.signed, settled.lines)

        async def hand(caller: Caller, request: AuditReceipt, code: ReasonCode) -> None:
            await refused(caller.call(farm, AuditMethod.AUDIT_RECEIPT, request), code)

        await hand(stranger, good, ReasonCode.WRONG_IDENTITY)
        await hand(renter, AuditReceipt(good.receipt, good.lines[:-1]), ReasonCode.HASH_MISMATCH)
        later = structs.replace(good.receipt.receipt, judged_at_ms=good.receipt.receipt.judged_at_ms + 1)
        await hand(renter, AuditReceipt(replaced(good, later, None), good.lines), ReasonCode.BAD_SIGNATURE)
        nonce = structs.replace(later, nonce=bytes(32))
        await hand(renter, AuditReceipt(replaced(good, nonce, renter), good.lines), ReasonCode.UNBOUND_REPLY)
        other = structs.replace(later, farmer_key=public(9))
        await hand(renter, AuditReceipt(replaced(good, other, renter), good.lines), ReasonCode.WRONG_RECIPIENT)
        version = structs.replace(later, version=2)
        await hand(renter, AuditReceipt(replaced(good, version, renter), good.lines), ReasonCode.WRONG_VERSION)
        network = structs.replace(later, network="elsewhere")
        await hand(renter, AuditReceipt(replaced(good, network, renter), good.lines), ReasonCode.WRONG_NETWORK)
        never = renter.challenge(farm, scene.first, nonce=7)
        silent = settle(never.challenge, {}, {}, renter.key, renter.clock.now_ms())
        await hand(renter, AuditReceipt(silent.signed, silent.lines), ReasonCode.UNBOUND_REPLY)
        assert farm.contracts.audits.rounds(1)[0].counts is None

        await renter.call(farm, AuditMethod.AUDIT_RECEIPT, good)
        await renter.call(farm, AuditMethod.AUDIT_RECEIPT, good)
        false = settle(signed.challenge, {}, {}, renter.key, renter.clock.now_ms())
        await renter.call(farm, AuditMethod.AUDIT_RECEIPT, AuditReceipt(false.signed, false.lines))
        assert farm.contracts.audits.round(signed.challenge.digest).receipt == good.receipt

    def replaced(good: AuditReceipt, receipt: Any, signer: Caller | None) -> Any:
        signature = good.receipt.signature if signer is None else signer.key.sign(receipt.digest)
        return structs.replace(good.receipt, receipt=receipt, signature=signature)

    at_a_farm(play)


# --- losses ----------------------------------------------------------------------------------------------------------


def test_damage_found_while_proving_is_a_loss_too_late_and_spoils_no_other_answer() -> None:
    async def play(scene: Round) -> None:
        scene.spoil(scene.first, 0)
        signed = scene.renter.challenge(scene.farm, *scene.contracts, wanted=24)
        settled = await scene.renter.audit_all(scene.farm, signed)
        verdicts = {line.contract_id: line.verdict for line in settled.lines}
        assert verdicts.pop(scene.first.contract_id) is Verdict.FAILED
        assert set(verdicts.values()) == {Verdict.PASSED}
        assert scene.farm.contracts.get(scene.first.contract_id).state is ContractState.LOST
        (loss,) = (await scene.renter.heartbeat(scene.farm)).losses
        verify_loss(loss, scene.first.terms)

    at_a_farm(play)


def test_one_bad_read_is_no_loss() -> None:
    class Cable(MemoryShardStore):
        bad_reads = 0

        def read_units(self, root: Any, first_unit: int, into: memoryview) -> int:
            got = super().read_units(root, first_unit, into)
            if self.bad_reads:
                self.bad_reads -= 1
                into[0] ^= 1
            return got

    shards = Cable()

    async def play(scene: Round) -> None:
        for bad in (1, 2, 3):
            shards.bad_reads = bad
            signed = scene.renter.challenge(scene.farm, scene.first, wanted=1, nonce=bad)
            settled = await scene.renter.audit_all(scene.farm, signed)
            assert settled.signed.receipt.count(Verdict.PASSED) == 1

    at_a_farm(play, shards=shards)


def test_a_loss_found_by_scrubbing_is_told_until_it_is_noted_and_then_counts() -> None:
    async def play(scene: Round) -> None:
        farm, renter = scene.farm, scene.renter
        scene.spoil(scene.first)
        await farm.farmer.scrub_everything()
        told = (await renter.heartbeat(farm)).losses
        assert (await renter.heartbeat(farm)).losses == told
        note = note_loss(told[0], renter.key, renter.clock.now_ms())
        reply = await renter.heartbeat(farm, note.note)
        assert (reply.losses, reply.stored_count, reply.stored_bytes) == ((), 2, 2 * SIZE)
        assert farm.contracts.audits.noted([scene.first.contract_id]) == [note]
        later = note_loss(told[0], renter.key, renter.clock.now_ms() + 5)
        await renter.heartbeat(farm, later.note)  # the first note stays
        assert farm.contracts.audits.noted([scene.first.contract_id]) == [note]
        await asyncio.sleep(1)
        settled = await renter.audit_all(farm, renter.challenge(farm, *scene.contracts, wanted=24), [note])
        verdicts = {line.contract_id: line.verdict for line in settled.lines}
        assert verdicts.pop(scene.first.contract_id) is Verdict.LOST
        assert set(verdicts.values()) == {Verdict.PASSED}
        status = (await farm.status()).audits
        assert (status.losses_declared, status.losses_noted) == (1, 1)

    at_a_farm(play)


def test_a_repeat_finds_the_declared_loss_again() -> None:
    async def play(scene: Round) -> None:
        farm, renter = scene.farm, scene.renter
        signed = renter.challenge(farm, scene.first)
        scene.spoil(scene.first)
        first = await renter.audit(farm, signed)
        await asyncio.sleep(1)
        ids = {scene.first.contract_id}
        repeat = repeat_challenge(
            signed.challenge,
            ids,
            renter.key,
            nonce=bytes(32),
            now_ms=renter.clock.now_ms(),
            answer_within_ms=60_000,
        )
        assert (await renter.audit(farm, repeat)).items == first.items
        assert first.items[0].kind is AnswerKind.LOST

    at_a_farm(play)


def test_a_retrieve_that_finds_damage_declares_it() -> None:
    async def play(scene: Round) -> None:
        scene.spoil(scene.first)
        await refused(scene.renter.fetch(scene.farm, scene.first), ReasonCode.SHARD_LOST)
        assert len((await scene.renter.heartbeat(scene.farm)).losses) == 1

    at_a_farm(play)


def test_a_shard_found_missing_by_any_request_is_declared() -> None:
    async def play(scene: Round) -> None:
        farm, renter = scene.farm, scene.renter
        for contract in scene.contracts:
            farm.shards.erase(contract.terms.shard_root)
        first, second, third = scene.contracts
        await refused(renter.fetch(farm, first), ReasonCode.SHARD_LOST)
        await refused(renter.consign(farm, second, shard_bytes(SIZE, 1)), ReasonCode.SHARD_LOST)
        longer = sign_renewal(next_revision(third, end_ms=third.terms.end_ms + DAY_MS), renter.key)
        await refused(renter.call(farm, Method.RENEW, longer), ReasonCode.SHARD_LOST)
        told = {loss.loss.contract_id for loss in (await renter.heartbeat(farm)).losses}
        assert told == {contract.contract_id for contract in scene.contracts}

    at_a_farm(play)


def test_a_file_missing_at_the_start_is_declared_at_the_start() -> None:
    async def play(scene: Round) -> None:
        farm = scene.farm
        await farm.farmer.stop(grace_seconds=1)
        farm.shards.erase(scene.first.terms.shard_root)
        await farm.farmer.start()
        (loss,) = (await scene.renter.heartbeat(farm)).losses
        verify_loss(loss, scene.first.terms)

    at_a_farm(play)


def test_a_stranger_hears_of_nothing_and_its_notes_change_nothing() -> None:
    async def play(scene: Round) -> None:
        farm, renter, stranger = scene.farm, scene.renter, scene.stranger
        scene.spoil(scene.first)
        await farm.farmer.scrub_everything()
        reply = await stranger.heartbeat(farm)
        assert (reply.stored_count, reply.stored_bytes, reply.losses, reply.more) == (0, 0, (), False)
        (loss,) = (await renter.heartbeat(farm)).losses
        theirs = note_loss(loss, stranger.key, stranger.clock.now_ms())
        await stranger.heartbeat(farm, theirs.note)
        forged = structs.replace(theirs.note.note, auditor_key=renter.key.public_key)
        await renter.heartbeat(farm, structs.replace(theirs.note, note=forged), theirs.note)
        assert (await renter.heartbeat(farm)).losses == (loss,)

    at_a_farm(play)


def test_losses_come_in_pages_by_contract() -> None:
    async def play(scene: Round) -> None:
        for contract in scene.contracts:
            scene.spoil(contract)
        await scene.farm.farmer.scrub_everything()
        ids = sorted(contract.contract_id for contract in scene.contracts)
        assert [loss.loss.contract_id for loss in (await scene.renter.heartbeat(scene.farm)).losses] == ids
        rest = await scene.renter.heartbeat(scene.farm, after=ids[0])
        assert [loss.loss.contract_id for loss in rest.losses] == ids[1:]

    at_a_farm(play)


def test_a_connected_renter_is_called_and_its_notes_are_kept() -> None:
    async def play(scene: Round) -> None:
        farm, renter = scene.farm, scene.renter
        calls: list[int] = []

        async def note(exchange: Any, payload: bytes) -> None:
            losses = decode(DeclareLoss, payload).losses
            calls.append(len(losses))
            notes = [note_loss(loss, renter.key, renter.clock.now_ms()).note for loss in losses]
            await exchange.reply(encode(LossesNoted(tuple(notes))))

        scene.spoil(scene.first)
        await farm.farmer.scrub_everything()
        await farm.farmer.declare_losses()  # a renter that does not serve the method is left in peace for a while
        renter.endpoint.handle(AuditMethod.DECLARE_LOSS, note)
        assert await farm.farmer.declare_losses() == 0
        await asyncio.sleep(3700)
        await renter.heartbeat(farm)  # a session is open
        assert calls == [] or calls == [1]
        await farm.farmer.declare_losses()
        assert calls == [1]
        assert farm.contracts.audits.loss_counts().noted == 1
        await farm.farmer.declare_losses()
        assert calls == [1]

    at_a_farm(play)


def test_a_lost_contract_leaves_its_root_to_a_new_one() -> None:
    async def play(scene: Round) -> None:
        farm, renter, lost = scene.farm, scene.renter, scene.first
        data = shard_bytes(SIZE, 0)
        scene.spoil(lost)
        await farm.farmer.scrub_everything()
        await asyncio.sleep(1)
        anew = await renter.store(farm, data, audit=FREE)
        assert anew.contract_id != lost.contract_id
        assert anew.terms.shard_root == lost.terms.shard_root
        assert await renter.fetch(farm, anew) == data
        await refused(renter.consign(farm, lost, data), ReasonCode.SHARD_LOST)  # a loss is not taken back
        answer = (await renter.cancel(farm, lost)).answers[0]
        assert answer.receipt is not None
        assert await renter.fetch(farm, anew) == data  # the old contract's end is not the new one's
        settled = await renter.audit_all(farm, renter.challenge(farm, anew, nonce=4))
        assert settled.signed.receipt.count(Verdict.PASSED) == 1
        assert not (await renter.heartbeat(farm)).losses

    at_a_farm(play)


def test_a_lost_contract_that_ends_leaves_the_new_one_alone() -> None:
    async def play(scene: Round) -> None:
        farm, renter, lost = scene.farm, scene.renter, scene.first
        scene.spoil(lost)
        await farm.farmer.scrub_everything()
        await asyncio.sleep(35 * DAY_MS / 1000)
        anew = await renter.store(farm, shard_bytes(SIZE, 0))
        await asyncio.sleep(6 * DAY_MS / 1000)
        await farm.farmer.reap()
        assert farm.contracts.get(lost.contract_id) is None
        assert await renter.fetch(farm, anew) == shard_bytes(SIZE, 0)

    at_a_farm(play)


def test_a_kill_between_loss_and_declaration_is_made_good_at_the_start() -> None:
    async def play(scene: Round) -> None:
        farm, renter = scene.farm, scene.renter
        farm.contracts.put(HeldContract(scene.first, ContractState.LOST))
        assert not (await renter.heartbeat(farm)).losses
        for _ in range(2):
            await farm.farmer.stop(grace_seconds=1)
            await farm.farmer.start()
            (loss,) = (await renter.heartbeat(farm)).losses
            verify_loss(loss, scene.first.terms)
            await asyncio.sleep(1)
        told = farm.contracts.audits.loss(scene.first.contract_id)
        assert loss == told  # one declaration, whatever happens

    at_a_farm(play)


def test_heartbeats_without_end_are_told_to_wait() -> None:
    async def play(scene: Round) -> None:
        for _ in range(2):
            await scene.stranger.heartbeat(scene.farm)
        with pytest.raises(RefusedError) as refused:
            await scene.stranger.heartbeat(scene.farm)
        assert refused.value.code is ReasonCode.RATE_LIMITED
        assert (await scene.renter.heartbeat(scene.farm)).stored_count == 3

    at_a_farm(play, farm_settings=settings(GIB, audits=AuditLimits(heartbeat_burst=2, heartbeats_per_second=0.01)))
