"""A farmer on the network, dishonest or mistaken callers: everything is refused, each thing with its own code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from farm_network import Caller, Countryside, Farm, key, public
from farm_samples import GIB, root_of, settings, shard_bytes
from stook.codec import encode
from stook.contracts.contract import Contract
from stook.contracts.grant import Operation, attenuate
from stook.contracts.lifecycle import ContractState
from stook.contracts.messages import Announce, Consign, Method
from stook.contracts.negotiation import DAY_MS
from stook.contracts.renewal import next_revision, sign_renewal
from stook.errors import EnvironmentFault, PeerError, ReasonCode, RefusedError
from stook.farmer.settings import TransferLimits
from stook.ids import Signature
from stook.merkle import UNIT_BYTES, leaves_of
from stook.storage.memory import MemoryShardStore
from stook.storage.ports import HeldContract
from wire_samples import run_virtual

SIZE = 8 * UNIT_BYTES
DATA = shard_bytes(SIZE)
OTHER_DATA = shard_bytes(SIZE, 2)
SMALL_BLOCKS = settings(GIB, transfers=TransferLimits(block_bytes=UNIT_BYTES))


class Stage:
    """A farm, a renter with a reserved and a stored shard, a second farm, and a stranger."""

    def __init__(self, land: Countryside, farm: Farm, elsewhere: Farm, renter: Caller, stranger: Caller) -> None:
        self.land, self.farm, self.elsewhere, self.renter, self.stranger = land, farm, elsewhere, renter, stranger
        self.reserved: Contract
        self.stored: Contract


def on_stage(play: Callable[[Stage], Awaitable[None]], **farm: Any) -> None:
    async def scene() -> None:
        async with Countryside() as land:
            stage = Stage(land, await land.farm(2, **farm), await land.farm(6), land.caller(1), land.caller(3))
            stage.reserved = await stage.renter.agree(stage.farm, DATA)
            stage.stored = await stage.renter.store(stage.farm, OTHER_DATA)
            await play(stage)

    run_virtual(scene())


async def refused(work: Awaitable[Any], code: ReasonCode) -> None:
    with pytest.raises(RefusedError) as told:
        await work
    assert told.value.code is code, told.value


Play = Callable[[Stage], Awaitable[Any]]


def consign(**changes: Any) -> Play:
    """Bring the reserved shard, with something wrong about contract or grant."""

    def play(stage: Stage) -> Awaitable[Any]:
        contract = changes.get("contract", lambda stage: stage.reserved)(stage)
        grant = changes.get("grant", lambda stage: stage.renter.grant(stage.reserved, Operation.CONSIGN))(stage)
        farm = changes.get("farm", lambda stage: stage.farm)(stage)
        caller = changes.get("caller", lambda stage: stage.renter)(stage)
        return caller.consign(farm, contract, changes.get("data", DATA), grant=grant, leaves=changes.get("leaves"))

    return play


def wrongly_signed(stage: Stage) -> Contract:
    return structs.replace(stage.reserved, renter_signature=Signature(bytes(63) + b"\x01"))


def never_reserved(stage: Stage) -> Contract:
    draft = stage.renter.draft(stage.farm, DATA, memo=b"other")
    return Contract(draft, stage.farm.key.sign(draft.digest), stage.renter.key.sign(draft.digest))


@pytest.mark.parametrize(
    ("play", "code"),
    [
        (consign(contract=wrongly_signed), ReasonCode.BAD_SIGNATURE),
        (
            consign(contract=never_reserved, grant=lambda s: s.renter.grant(never_reserved(s), Operation.CONSIGN)),
            ReasonCode.UNKNOWN_CONTRACT,
        ),
        (consign(farm=lambda s: s.elsewhere), ReasonCode.WRONG_RECIPIENT),
        (consign(caller=lambda s: s.stranger), ReasonCode.GRANT_WRONG_GRANTEE),
        (consign(grant=lambda s: s.renter.grant(s.stored, Operation.CONSIGN)), ReasonCode.GRANT_WRONG_SHARD),
        (consign(grant=lambda s: s.renter.grant(s.reserved, Operation.RETRIEVE)), ReasonCode.GRANT_WRONG_OPERATION),
        (
            consign(grant=lambda s: s.renter.grant(s.reserved, Operation.CONSIGN, expires_ms=s.renter.clock.now_ms())),
            ReasonCode.GRANT_EXPIRED,
        ),
        (
            consign(grant=lambda s: s.renter.grant(s.reserved, Operation.CONSIGN, end_byte=SIZE - 1)),
            ReasonCode.GRANT_OUT_OF_RANGE,
        ),
        (
            consign(
                grant=lambda s: structs.replace(
                    s.renter.grant(s.reserved, Operation.CONSIGN), signature=Signature(bytes(63) + b"\x01")
                )
            ),
            ReasonCode.GRANT_INVALID,
        ),
        (consign(data=DATA[:-1] + b"\x00"), ReasonCode.HASH_MISMATCH),
        (consign(data=b"\x00" + DATA[1:]), ReasonCode.HASH_MISMATCH),
        (consign(leaves=b"".join(leaves_of(memoryview(OTHER_DATA)))), ReasonCode.HASH_MISMATCH),
        (consign(data=DATA[:-UNIT_BYTES], leaves=b"".join(leaves_of(memoryview(DATA)))), ReasonCode.TRUNCATED),
    ],
)
def test_a_shard_that_may_not_come_does_not_come(play: Play, code: ReasonCode) -> None:
    async def acted(stage: Stage) -> None:
        await refused(play(stage), code)
        held = stage.farm.contracts.get(stage.reserved.contract_id)
        assert held is not None
        assert held.state is ContractState.OFFERED
        assert stage.farm.shards.find(root_of(DATA)) is None
        for _ in range(100):
            await asyncio.sleep(0)  # the refusal may be here before the farmer has put its things away
        counted = await stage.farm.status()
        if code is not ReasonCode.WRONG_RECIPIENT:  # that one was the other farmer's
            assert counted.refusals == {code.name: 1}
        # And the mistake costs nothing: the true shard still comes.
        await stage.renter.consign(stage.farm, stage.reserved, DATA)

    on_stage(acted, farm_settings=SMALL_BLOCKS)


def test_a_shard_after_consign_by_comes_too_late() -> None:
    async def play(stage: Stage) -> None:
        stage.farm.clock.skew_ms += 61 * 60_000
        stage.renter.clock.skew_ms += 61 * 60_000
        await refused(stage.renter.consign(stage.farm, stage.reserved, DATA), ReasonCode.CONSIGN_TOO_LATE)
        await stage.farm.farmer.reap()
        await refused(stage.renter.consign(stage.farm, stage.reserved, DATA), ReasonCode.UNKNOWN_CONTRACT)

    on_stage(play)


def test_an_upload_grant_is_spent_by_its_receipt() -> None:
    async def play(stage: Stage) -> None:
        grant = stage.renter.grant(stage.reserved, Operation.CONSIGN)
        await stage.renter.consign(stage.farm, stage.reserved, DATA, grant=grant)
        await stage.renter.cancel(stage.farm, stage.reserved)
        await refused(stage.renter.consign(stage.farm, stage.reserved, DATA, grant=grant), ReasonCode.UNKNOWN_CONTRACT)

    on_stage(play)


def fetch(**changes: Any) -> Play:
    """Fetch the stored shard, with something wrong about the grant."""

    def play(stage: Stage) -> Awaitable[Any]:
        contract = changes.get("contract", lambda stage: stage.stored)(stage)
        grant = stage.renter.grant(contract, Operation.RETRIEVE)
        grant = changes.get("grant", lambda stage: grant)(stage)
        farm = changes.get("farm", lambda stage: stage.farm)(stage)
        caller = changes.get("caller", lambda stage: stage.renter)(stage)
        return caller.retrieve(farm, grant, *changes.get("units", ()))

    return play


def forged(stage: Stage) -> Any:
    """A grant that the stranger signed itself, in the renter's name."""
    honest = stage.renter.grant(stage.stored, Operation.RETRIEVE, grantee_key=public(3))
    return structs.replace(honest, signature=stage.stranger.key.sign(honest.grant.digest))


def issued_by_stranger(stage: Stage) -> Any:
    honest = stage.renter.grant(stage.stored, Operation.RETRIEVE, grantee_key=public(3)).grant
    own = structs.replace(honest, issuer_key=public(3))
    return structs.replace(
        stage.renter.grant(stage.stored, Operation.RETRIEVE), grant=own, signature=stage.stranger.key.sign(own.digest)
    )


@pytest.mark.parametrize(
    ("play", "code"),
    [
        (fetch(caller=lambda s: s.stranger), ReasonCode.GRANT_WRONG_GRANTEE),
        (fetch(farm=lambda s: s.elsewhere), ReasonCode.GRANT_WRONG_FARMER),
        (fetch(caller=lambda s: s.stranger, grant=forged), ReasonCode.GRANT_INVALID),
        (fetch(caller=lambda s: s.stranger, grant=issued_by_stranger), ReasonCode.GRANT_INVALID),
        (fetch(grant=lambda s: s.renter.grant(s.stored, Operation.CONSIGN)), ReasonCode.GRANT_WRONG_OPERATION),
        (
            fetch(grant=lambda s: s.renter.grant(s.stored, Operation.RETRIEVE, expires_ms=s.renter.clock.now_ms())),
            ReasonCode.GRANT_EXPIRED,
        ),
        (
            fetch(grant=lambda s: s.renter.grant(s.stored, Operation.RETRIEVE, end_byte=SIZE - UNIT_BYTES)),
            ReasonCode.GRANT_OUT_OF_RANGE,
        ),
        (fetch(units=(8, 8)), ReasonCode.GRANT_OUT_OF_RANGE),
        (fetch(units=(5, 3)), ReasonCode.GRANT_OUT_OF_RANGE),
        (fetch(units=(2**32 - 1, 2**32 - 1)), ReasonCode.GRANT_OUT_OF_RANGE),
        (
            fetch(grant=lambda s: s.renter.grant(s.stored, Operation.RETRIEVE, budget_bytes=SIZE - 1)),
            ReasonCode.GRANT_EXHAUSTED,
        ),
        (fetch(contract=lambda s: s.reserved), ReasonCode.NOT_STORED_YET),
        (fetch(contract=never_reserved), ReasonCode.UNKNOWN_CONTRACT),
    ],
)
def test_a_shard_that_may_not_go_does_not_go(play: Play, code: ReasonCode) -> None:
    async def acted(stage: Stage) -> None:
        await refused(play(stage), code)
        assert (await stage.farm.status()).bytes_out == 0
        assert await stage.renter.fetch(stage.farm, stage.stored) == OTHER_DATA

    on_stage(acted)


def test_a_grant_for_another_shard_opens_that_shard_only() -> None:
    async def play(stage: Stage) -> None:
        await stage.renter.consign(stage.farm, stage.reserved, DATA)
        grant = stage.renter.grant(stage.stored, Operation.RETRIEVE)
        mixed = structs.replace(grant.grant, shard_root=root_of(DATA))
        signed = structs.replace(grant, grant=mixed, signature=stage.renter.key.sign(mixed.digest))
        await refused(stage.renter.retrieve(stage.farm, signed), ReasonCode.GRANT_WRONG_SHARD)

    on_stage(play)


def test_many_children_of_a_grant_share_its_budget() -> None:
    async def play(stage: Stage) -> None:
        parent = stage.renter.grant(stage.stored, Operation.RETRIEVE, grantee_key=public(3))
        for serial, works in ((b"a", True), (b"b", False)):
            child = attenuate(
                parent, key(3), grantee_key=public(3), serial=serial * 16, budget_bytes=SIZE - 3 * UNIT_BYTES
            )
            fetching = stage.stranger.retrieve(stage.farm, child, 0, 5)
            if works:
                assert (await fetching)[1] == OTHER_DATA[: 5 * UNIT_BYTES]
            else:
                await refused(fetching, ReasonCode.GRANT_EXHAUSTED)
        assert (await stage.stranger.retrieve(stage.farm, parent, 5, 8))[1] == OTHER_DATA[5 * UNIT_BYTES :], (
            "what the refused child was charged for was given back to its parent"
        )

    on_stage(play)


def test_an_ended_contract_serves_no_more_even_before_it_is_reaped() -> None:
    async def play(stage: Stage) -> None:
        for clock in (stage.farm.clock, stage.renter.clock):
            clock.skew_ms += 41 * DAY_MS
        grant = stage.renter.grant(stage.stored, Operation.RETRIEVE)
        await refused(stage.renter.retrieve(stage.farm, grant), ReasonCode.CONTRACT_ENDED)

    on_stage(play)


class Rotting(MemoryShardStore):
    """Serves flipped bits from the unit `rotten` on, as often as `bad_reads` says."""

    rotten: int | None = None
    bad_reads = 10**9

    def read_units(self, root: Any, first_unit: int, into: memoryview) -> int:
        got = super().read_units(root, first_unit, into)
        if self.rotten is not None and first_unit >= self.rotten and self.bad_reads:
            self.bad_reads -= 1
            into[0] ^= 1
        return got


def test_damage_is_confessed_and_never_served() -> None:
    async def play(stage: Stage) -> None:
        stage.farm.shards.rotten = 4
        grant = stage.renter.grant(stage.stored, Operation.RETRIEVE, budget_bytes=2 * SIZE)
        await refused(stage.renter.retrieve(stage.farm, grant), ReasonCode.SHARD_LOST)
        held = stage.farm.contracts.get(stage.stored.contract_id)
        assert held == HeldContract(stage.stored, ContractState.LOST)
        status = await stage.farm.status()
        assert status.contracts["lost"] == 1
        assert status.bytes_out == 4 * UNIT_BYTES, "the sound units before it went out, not one bad byte"
        await refused(stage.renter.retrieve(stage.farm, grant), ReasonCode.SHARD_LOST)
        await refused(stage.renter.consign(stage.farm, stage.stored, OTHER_DATA), ReasonCode.SHARD_LOST)
        asked = sign_renewal(next_revision(stage.stored), stage.renter.key)
        await refused(stage.renter.call(stage.farm, Method.RENEW, asked), ReasonCode.SHARD_LOST)
        page = await stage.renter.listed(stage.farm)
        assert {one.contract.contract_id: one.stored for one in page.contracts}[stage.stored.contract_id] is False
        (answer,) = (await stage.renter.cancel(stage.farm, stage.stored)).answers
        assert answer.receipt is not None
        assert (await stage.farm.status()).contracts["lost"] == 0

    on_stage(play, farm_settings=SMALL_BLOCKS, shards=Rotting())


def test_one_bad_read_is_no_loss() -> None:
    async def play(stage: Stage) -> None:
        stage.farm.shards.rotten, stage.farm.shards.bad_reads = 4, 1
        assert await stage.renter.fetch(stage.farm, stage.stored) == OTHER_DATA

    on_stage(play, farm_settings=SMALL_BLOCKS, shards=Rotting())


def test_a_vanished_file_is_a_loss_too() -> None:
    async def play(stage: Stage) -> None:
        stage.farm.shards.erase(root_of(OTHER_DATA))
        await refused(stage.renter.fetch(stage.farm, stage.stored), ReasonCode.SHARD_LOST)
        held = stage.farm.contracts.get(stage.stored.contract_id)
        assert held == HeldContract(stage.stored, ContractState.LOST)

    on_stage(play)


def test_nobody_cancels_or_renews_what_is_not_theirs() -> None:
    async def play(stage: Stage) -> None:
        reply = await stage.stranger.cancel(stage.farm, stage.stored, stage.reserved, never_reserved(stage))
        codes = [answer.code for answer in reply.answers]
        assert codes == [ReasonCode.NOT_YOUR_CONTRACT, ReasonCode.NOT_YOUR_CONTRACT, ReasonCode.UNKNOWN_CONTRACT]
        asked = sign_renewal(next_revision(stage.stored), stage.renter.key)
        await refused(stage.stranger.call(stage.farm, Method.RENEW, asked), ReasonCode.NOT_YOUR_CONTRACT)
        asked = sign_renewal(next_revision(stage.reserved), stage.renter.key)
        await refused(stage.renter.call(stage.farm, Method.RENEW, asked), ReasonCode.NOT_STORED_YET)
        wider = next_revision(stage.stored, shard_root=root_of(DATA))
        await refused(
            stage.renter.call(stage.farm, Method.RENEW, sign_renewal(wider, stage.renter.key)),
            ReasonCode.FIELD_NOT_RENEWABLE,
        )
        await refused(
            stage.renter.call(stage.farm, Method.RENEW, sign_renewal(next_revision(never_reserved(stage)), key(1))),
            ReasonCode.UNKNOWN_CONTRACT,
        )
        assert await stage.renter.fetch(stage.farm, stage.stored) == OTHER_DATA

    on_stage(play)


def test_a_cancelled_transfer_stops_and_its_shard_is_gone() -> None:
    async def play(stage: Stage) -> None:
        grant = stage.renter.grant(stage.reserved, Operation.CONSIGN)
        request = encode(Consign(stage.reserved, grant))
        renter, farm = stage.renter, stage.farm
        async with renter.endpoint.exchange(farm.peer, Method.CONSIGN, request, deadline_seconds=60) as exchange:
            await renter.begin_consign(exchange, DATA, UNIT_BYTES)
            (answer,) = (await renter.cancel(farm, stage.reserved)).answers
            assert answer.receipt is not None
            with pytest.raises(PeerError):
                await exchange.next_reply()
        assert farm.contracts.get(stage.reserved.contract_id) is None
        assert farm.shards.resumable_units(root_of(DATA), SIZE) == 0

    on_stage(play, farm_settings=SMALL_BLOCKS)


def test_beyond_the_line_a_farmer_is_busy_and_says_when_to_come_back() -> None:
    narrow = settings(GIB, transfers=TransferLimits(max_transfers=1, max_waiting=1, block_bytes=UNIT_BYTES))

    async def play(stage: Stage) -> None:
        renter, farm = stage.renter, stage.farm
        request = encode(Consign(stage.reserved, renter.grant(stage.reserved, Operation.CONSIGN)))
        async with renter.endpoint.exchange(farm.peer, Method.CONSIGN, request, deadline_seconds=60) as exchange:
            await renter.begin_consign(exchange, DATA, UNIT_BYTES)
            waiting = asyncio.create_task(renter.fetch(farm, stage.stored))
            for _ in range(1000):
                if (await farm.status()).transfers_waiting:
                    break
                await asyncio.sleep(0)
            with pytest.raises(RefusedError) as told:
                await renter.fetch(farm, stage.stored)
            assert told.value.code is ReasonCode.BUSY
            assert told.value.retryable
            assert told.value.retry_after_ms > 0
            await exchange.send(memoryview(DATA)[UNIT_BYTES:])
            await exchange.next_reply()
            assert await waiting == OTHER_DATA

    on_stage(play, farm_settings=narrow)


def test_a_transfer_that_crawls_ends_at_its_deadline() -> None:
    short = TransferLimits(block_bytes=UNIT_BYTES, transfer_deadline_seconds=20)

    async def play(stage: Stage) -> None:
        renter, farm = stage.renter, stage.farm
        request = encode(Consign(stage.reserved, renter.grant(stage.reserved, Operation.CONSIGN)))
        async with renter.endpoint.exchange(farm.peer, Method.CONSIGN, request, deadline_seconds=600) as exchange:
            await renter.begin_consign(exchange, DATA, 0)
            with pytest.raises(PeerError):  # noqa: PT012 - the farmer may end it at any byte
                for at in range(0, SIZE, 4096):
                    await exchange.send(memoryview(DATA)[at : at + 4096])
                    await asyncio.sleep(1)
                await exchange.next_reply()
        assert farm.shards.resumable_units(root_of(DATA), SIZE) in (4, 5)
        await renter.consign(farm, stage.reserved, DATA)

    on_stage(play, farm_settings=settings(GIB, transfers=short))


def test_junk_is_malformed_whatever_the_method() -> None:
    async def play(stage: Stage) -> None:
        for method in Method:
            await refused(
                stage.renter.endpoint.call(stage.farm.peer, method, b"\xc1junk", deadline_seconds=10),
                ReasonCode.MALFORMED,
            )
        assert (await stage.farm.status()).refusals == {"MALFORMED": len(Method)}

    on_stage(play)


def test_a_false_announcement_is_refused_by_the_seed() -> None:
    async def play(stage: Stage) -> None:
        honest = await stage.elsewhere.farmer.announcement()
        false = structs.replace(honest, announcement=structs.replace(honest.announcement, operator="mallory"))
        await refused(stage.renter.call(stage.farm, Method.ANNOUNCE, Announce(false)), ReasonCode.BAD_SIGNATURE)
        assert len(stage.farm.book) == 0

    on_stage(play)


def test_a_newer_claim_takes_the_place_of_ones_own_unfilled_one() -> None:
    async def play(stage: Stage) -> None:
        newer = stage.renter.draft(stage.farm, DATA, memo=b"newer")
        other = shard_bytes(SIZE, 9)
        for caller, draft, code in (
            (stage.stranger, stage.stranger.draft(stage.farm, DATA), ReasonCode.ALREADY_STORED),
            (stage.renter, newer, 0),
            (stage.renter, stage.renter.draft(stage.farm, OTHER_DATA, memo=b"newer"), ReasonCode.ALREADY_STORED),
            (stage.renter, stage.renter.draft(stage.farm, other), 0),
        ):
            (answer,) = (await caller.claim(stage.farm, draft)).answers
            assert answer.code == code
        assert stage.farm.contracts.get(stage.reserved.contract_id) is None
        assert (await stage.farm.status()).reserved_bytes == 2 * SIZE
        await refused(stage.renter.consign(stage.farm, stage.reserved, DATA), ReasonCode.UNKNOWN_CONTRACT)

    on_stage(play)


def test_a_claim_does_not_disturb_a_transfer_under_way() -> None:
    async def play(stage: Stage) -> None:
        async with stage.farm.farmer._parts.gate.hold(root_of(DATA), deadline_seconds=10):
            (answer,) = (await stage.renter.claim(stage.farm, stage.renter.draft(stage.farm, DATA, memo=b"x"))).answers
            assert answer.code == ReasonCode.ALREADY_STORED
        assert stage.farm.contracts.get(stage.reserved.contract_id) is not None

    on_stage(play)


def test_a_closed_farm_serves_its_friends_only() -> None:
    friends = settings(GIB)
    friends = replace(friends, terms=replace(friends.terms, allowed_renters=frozenset({key(1).node_id})))

    async def play(stage: Stage) -> None:
        reply = await stage.stranger.claim(stage.farm, stage.stranger.draft(stage.farm, shard_bytes(SIZE, 3)))
        assert reply.answers[0].code == ReasonCode.RENTER_NOT_ADMITTED
        assert reply.answers[0].farmer_signature == b""

    on_stage(play, farm_settings=friends)


def test_a_disk_fault_is_told_without_its_paths() -> None:
    async def play(stage: Stage) -> None:
        def full(*args: object) -> None:
            raise EnvironmentFault("/secret/place: no space left on device")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage.farm.shards, "open_writer", full)
            with pytest.raises(RefusedError) as told:
                await stage.renter.consign(stage.farm, stage.reserved, DATA)
        assert told.value.code is ReasonCode.DISK_LOW
        assert "secret" not in str(told.value)

    on_stage(play)
