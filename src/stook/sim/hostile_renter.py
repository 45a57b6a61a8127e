"""A renter that says what it likes: real signatures, real sessions, and no scruples. Farmers must bear it.

It keeps nothing and checks nothing; each method is one step of an attack and gives back the farmer's own words, or
raises its refusal. What farmers must hold against it is a table in `docs/simulator.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from stook.audits.challenge import Parties, SignedChallenge, draw_challenge, pages_of
from stook.audits.holding import NONCE_BYTES, HeldShard, Holding
from stook.audits.messages import Audit, AuditMethod, AuditReceipt, AuditReply, Heartbeat, HeartbeatReply
from stook.audits.proof import Came
from stook.audits.receipt import ReceiptLine, SignedBatchReceipt
from stook.codec import decode, encode
from stook.contracts.announcement import Announcement
from stook.contracts.contract import Contract, Terms
from stook.contracts.grant import Operation, SignedGrant, issue_grant
from stook.contracts.loss import SignedLossNote
from stook.contracts.messages import (
    Cancel,
    CancelAnswer,
    CancelReply,
    CapacityReply,
    CapacityRequest,
    Claim,
    ClaimAnswer,
    ClaimReply,
    Consign,
    ConsignReady,
    Method,
    Retrieve,
    RetrieveReady,
)
from stook.contracts.negotiation import countersign
from stook.contracts.receipt import SignedStorageReceipt
from stook.ids import PublicKey, ShardRoot
from stook.merkle import UNIT_BYTES, leaves_of, shard_root, unit_count
from stook.renter.drafts import HOUR_MS, DraftRules, draft
from stook.sim.factories import node_key
from stook.sim.loop import VirtualClock
from stook.sim.nodes import SimFarmer, World
from stook.wire.endpoint import Endpoint, Exchange

DEADLINE_SECONDS = 1_000.0
ANSWER_MS = 120_000


@dataclass(frozen=True, slots=True)
class Goods:
    """A shard that may or may not ever be brought."""

    data: bytes

    @property
    def leaves(self) -> bytes:
        """Its leaf list."""
        return b"".join(leaves_of(memoryview(self.data)))

    @property
    def root(self) -> ShardRoot:
        """Its id."""
        return shard_root(len(self.data), leaves_of(memoryview(self.data)))


class HostileRenter:
    """A key, an endpoint, and a way to say anything to any farmer."""

    def __init__(self, world: World, name: str) -> None:
        self.dice = world.dice.child(name)
        self.key = node_key(self.dice.child("key"))
        self.clock = VirtualClock()
        self.endpoint = Endpoint(
            key=self.key,
            network=world.network_id,
            clock=self.clock,
            entropy=self.dice.child("entropy"),
            carrier=world.network.carrier(name),
            limits=world.limits,
            on_error=lambda method, error: world.error(f"{name} {method}", error),
        )
        self._network_id = world.network_id

    async def close(self) -> None:
        """Leave."""
        await self.endpoint.close(grace_seconds=0)

    def goods(self, size_bytes: int = UNIT_BYTES) -> Goods:
        """A shard nobody has seen before."""
        return Goods(self.dice(size_bytes))

    # --- contracts ---------------------------------------------------------------------------------------------------

    async def announcement(self, farmer: SimFarmer) -> Announcement:
        """What the farmer says of itself now."""
        reply = await self._call(farmer, Method.CAPACITY, encode(CapacityRequest()))
        return decode(CapacityReply, reply).announcement.announcement

    async def drafts(self, farmer: SimFarmer, goods: Sequence[Goods], *, days: int = 40) -> list[Terms]:
        """Terms the farmer has no reason to refuse."""
        announcement = await self.announcement(farmer)
        rules = DraftRules(network=self._network_id, renter_key=self.key.public_key, duration_ms=days * 24 * HOUR_MS)
        now_ms = self.clock.now_ms()
        return [draft(announcement, each.root, len(each.data), b"", rules, now_ms) for each in goods]

    async def claim(self, farmer: SimFarmer, drafts: Sequence[Terms]) -> tuple[ClaimAnswer, ...]:
        """What the farmer says to these drafts."""
        reply = await self._call(farmer, Method.CLAIM, encode(Claim(tuple(drafts))))
        return decode(ClaimReply, reply).answers

    async def contract(self, farmer: SimFarmer, goods: Goods) -> Contract:
        """A true contract over `goods`."""
        (terms,) = await self.drafts(farmer, [goods])
        (answer,) = await self.claim(farmer, [terms])
        return countersign(terms, answer.farmer_signature, self.key)

    async def cancel(self, farmer: SimFarmer, contract: Contract) -> CancelAnswer:
        """What the farmer says to giving up a contract, whoever's it is."""
        reply = await self._call(farmer, Method.CANCEL, encode(Cancel((contract.contract_id,))))
        (answer,) = decode(CancelReply, reply).answers
        return answer

    # --- grants and bytes --------------------------------------------------------------------------------------------

    def grant(
        self,
        contract: Contract,
        operation: Operation,
        *,
        grantee: PublicKey | None = None,
        budget_bytes: int | None = None,
        life_ms: int = HOUR_MS,
    ) -> SignedGrant:
        """A grant on one of its own contracts, to itself unless told otherwise."""
        return issue_grant(
            contract.terms,
            self.key,
            grantee_key=self.key.public_key if grantee is None else grantee,
            operation=operation,
            expires_ms=self.clock.now_ms() + life_ms,
            serial=self.dice(16),
            budget_bytes=budget_bytes,
        )

    async def consign(
        self, farmer: SimFarmer, contract: Contract, grant: SignedGrant, leaves: bytes, data: bytes
    ) -> SignedStorageReceipt:
        """Bring any bytes under any contract and grant; the farmer's receipt."""
        request = encode(Consign(contract, grant))
        async with self._exchange(farmer, Method.CONSIGN, request) as exchange:
            ready = decode(ConsignReady, await exchange.next_reply())
            if ready.receipt is not None:
                return ready.receipt
            await exchange.send(leaves)
            await exchange.send(memoryview(data)[ready.first_unit * UNIT_BYTES :])
            await exchange.finish()
            return decode(SignedStorageReceipt, await exchange.next_reply())

    async def bring(self, farmer: SimFarmer, goods: Goods) -> Contract:
        """Store `goods` truly; the contract."""
        contract = await self.contract(farmer, goods)
        await self.consign(farmer, contract, self.grant(contract, Operation.CONSIGN), goods.leaves, goods.data)
        return contract

    async def begin_and_idle(
        self, farmer: SimFarmer, contract: Contract, *, sent_bytes: int = 0, wait_seconds: float = DEADLINE_SECONDS
    ) -> None:
        """Open a transfer, send a few bytes and then nothing; raises when the farmer has had enough."""
        request = encode(Consign(contract, self.grant(contract, Operation.CONSIGN)))
        async with self.endpoint.exchange(
            farmer.peer, Method.CONSIGN, request, deadline_seconds=wait_seconds
        ) as exchange:
            await exchange.next_reply()
            await exchange.send(bytes(sent_bytes))
            await exchange.next_reply()

    async def retrieve(self, farmer: SimFarmer, grant: SignedGrant, *, first_unit: int = 0, units: int = 1) -> bytes:
        """Fetch units under any grant; the bytes behind the leaf list."""
        request = encode(Retrieve(grant, first_unit, first_unit + units))
        async with self._exchange(farmer, Method.RETRIEVE, request) as exchange:
            size = decode(RetrieveReady, await exchange.next_reply()).size_bytes
            await exchange.receive_into(memoryview(bytearray(32 * unit_count(size))))
            data = bytearray(min(units * UNIT_BYTES, size - first_unit * UNIT_BYTES))
            await exchange.receive_into(memoryview(data))
            await exchange.finish()
            await exchange.expect_end()
        return bytes(data)

    # --- audits ------------------------------------------------------------------------------------------------------

    def challenge(
        self, farmer: SimFarmer, contracts: Sequence[Contract], *, wanted: int, renter: PublicKey | None = None
    ) -> SignedChallenge:
        """A challenge over the shards of these contracts, whoever's they are; signed by this renter."""
        return draw_challenge(
            Holding(HeldShard(one.contract_id, one.terms.shard_root, one.terms.shard_size_bytes) for one in contracts),
            Parties(self._network_id, self.key.public_key if renter is None else renter, farmer.key.public_key),
            self.key,
            nonce=self.dice(NONCE_BYTES),
            wanted=wanted,
            now_ms=self.clock.now_ms(),
            answer_within_ms=ANSWER_MS,
        )

    async def audit(self, farmer: SimFarmer, signed: SignedChallenge) -> dict[int, Came]:
        """The farmer's answer, all pages of it."""
        answers = {}
        for page in range(len(pages_of(signed.challenge))):
            reply = await self._call(farmer, AuditMethod.AUDIT, encode(Audit(signed, page, ())))
            answers[page] = Came(decode(AuditReply, reply).answer, self.clock.now_ms())
        return answers

    async def hand_in(self, farmer: SimFarmer, receipt: SignedBatchReceipt, lines: Sequence[ReceiptLine]) -> None:
        """Give the farmer a receipt, true or false."""
        await self._call(farmer, AuditMethod.AUDIT_RECEIPT, encode(AuditReceipt(receipt, tuple(lines))))

    async def heartbeat(self, farmer: SimFarmer, *notes: SignedLossNote) -> HeartbeatReply:
        """Ask what was lost, and bring notes."""
        return decode(HeartbeatReply, await self._call(farmer, AuditMethod.HEARTBEAT, encode(Heartbeat(b"", notes))))

    async def _call(self, farmer: SimFarmer, method: Method | AuditMethod, payload: bytes) -> bytes:
        return await self.endpoint.call(farmer.peer, method, payload, deadline_seconds=DEADLINE_SECONDS)

    def _exchange(self, farmer: SimFarmer, method: Method, payload: bytes) -> AbstractAsyncContextManager[Exchange]:
        return self.endpoint.exchange(farmer.peer, method, payload, deadline_seconds=DEADLINE_SECONDS)
