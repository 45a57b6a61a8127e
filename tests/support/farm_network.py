"""Farmers and a plain renter on a memory network in virtual time: `async with Countryside() as land: ...`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import contract_samples as samples
import wire_samples as wires
from contract_samples import NETWORK, RENTER
from farm_samples import GIB, draft_for, inline, root_of, settings
from stook.audits.challenge import Parties, SignedChallenge, draw_challenge, pages_of
from stook.audits.holding import HeldShard, Holding
from stook.audits.messages import (
    Audit,
    AuditMethod,
    AuditReceipt,
    AuditReply,
    Heartbeat,
    HeartbeatReply,
)
from stook.audits.proof import Came, SignedAnswer
from stook.audits.receipt import Settled, settle
from stook.codec import decode, encode
from stook.contracts.contract import Contract, Terms
from stook.contracts.grant import Operation, SignedGrant, issue_grant
from stook.contracts.loss import NotedLoss, SignedLossNote
from stook.contracts.messages import (
    Cancel,
    CancelReply,
    Claim,
    ClaimReply,
    Consign,
    ConsignReady,
    ContractPage,
    ListContracts,
    Method,
    Retrieve,
    RetrieveReady,
)
from stook.contracts.move import Move, MoveAnswer, MoveMethod, MoveOrder, MoveReply
from stook.contracts.negotiation import DAY_MS, HOUR_MS, countersign
from stook.contracts.receipt import SignedStorageReceipt, verify_storage_receipt
from stook.farmer.service import Farmer
from stook.farmer.settings import FarmerSettings
from stook.identity.contact import sign_contact
from stook.identity.keys import NodeKey
from stook.identity.membership import Gate
from stook.ids import PublicKey
from stook.merkle import UNIT_BYTES, leaves_of, unit_count
from stook.overlay.contact_book import BookLimits, ContactBook
from stook.storage.memory import MemoryContractStore, MemoryShardStore
from stook.wire.endpoint import Endpoint, Exchange, Peer

SKEW_MS = samples.NOW_MS - wires.NOW_MS
DEADLINE = 3600.0


@dataclass
class Farm:
    """One farmer with everything it was built from."""

    key: NodeKey
    endpoint: Endpoint
    farmer: Farmer
    shards: Any
    contracts: Any
    book: ContactBook
    peer: Peer
    clock: wires.LoopClock

    async def status(self) -> Any:
        return await self.farmer.status()


def key(number: int) -> NodeKey:
    return NodeKey.from_secret(bytes([number]) * 32)


class Countryside:
    """A memory network; farmers are made with `farm`, callers with `caller`. Everything is closed at the end."""

    def __init__(self, weather: wires.Wind | None = None) -> None:
        self.world = wires.World(weather)
        self.farms: list[Farm] = []

    async def __aenter__(self) -> Countryside:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        for farm in self.farms:
            await farm.farmer.stop(grace_seconds=1)
        await self.world.close()
        if error is None:
            assert not self.world.errors, self.world.errors

    def caller(self, number: int, **changes: Any) -> Caller:
        endpoint = self.world.node(number, **({"network": NETWORK, "clock": wires.LoopClock(SKEW_MS)} | changes))
        return Caller(key(number), endpoint, endpoint.clock)

    async def farm(
        self,
        number: int = 2,
        *,
        farm_settings: FarmerSettings | None = None,
        shards: Any = None,
        contracts: Any = None,
        seeds: Sequence[Peer] = (),
        start: bool = True,
        offload: Any = inline,
        free_disk: Callable[[], int] = lambda: 1 << 50,
        gate: Gate | None = None,
    ) -> Farm:
        clock = wires.LoopClock(SKEW_MS)
        endpoint = self.world.node(number, network=NETWORK, clock=clock, gate=gate)
        peer = await wires.listening(endpoint)
        endpoint.contact = sign_contact(
            key(number), network=NETWORK, addresses=peer.addresses, sequence=clock.now_ms(), issued_ms=clock.now_ms()
        )
        book = ContactBook(NETWORK, BookLimits(max_per_network=None))
        shards = MemoryShardStore() if shards is None else shards
        contracts = MemoryContractStore() if contracts is None else contracts
        farmer = Farmer(
            key=key(number),
            network=NETWORK,
            endpoint=endpoint,
            shards=shards,
            contracts=contracts,
            book=book,
            clock=clock,
            offload=offload,
            free_disk=free_disk,
            settings=settings(GIB) if farm_settings is None else farm_settings,
            seeds=seeds,
        )
        made = Farm(key(number), endpoint, farmer, shards, contracts, book, peer, clock)
        if start:
            await farmer.start()
            self.farms.append(made)
        return made


class Caller:
    """Says to a farmer exactly what a test wants said, true or not."""

    def __init__(self, node_key: NodeKey, endpoint: Endpoint, clock: Any, first_serial: int = 0) -> None:
        self.key = node_key
        self.endpoint = endpoint
        self.clock = clock
        self._serial = first_serial

    def draft(self, farm: Farm, data: bytes, **changes: object) -> Terms:
        now = self.clock.now_ms()
        times = {"begin_ms": now, "end_ms": now + 40 * DAY_MS, "consign_by_ms": now + HOUR_MS}
        parties = {"renter_key": self.key.public_key, "farmer_key": farm.key.public_key}
        return draft_for(root_of(data), len(data), **(parties | times | changes))

    async def call(self, farm: Farm, method: str, request: Any) -> bytes:
        return await self.endpoint.call(farm.peer, method, encode(request), deadline_seconds=DEADLINE)

    async def claim(self, farm: Farm, *drafts: Terms) -> ClaimReply:
        return decode(ClaimReply, await self.call(farm, Method.CLAIM, Claim(drafts)))

    async def agree(self, farm: Farm, data: bytes, **changes: object) -> Contract:
        """A contract with both signatures for a shard that is still to be brought."""
        draft = self.draft(farm, data, **changes)
        (answer,) = (await self.claim(farm, draft)).answers
        assert not answer.code, answer
        return countersign(draft, answer.farmer_signature, self.key)

    def grant(self, contract: Contract, operation: Operation, **changes: Any) -> SignedGrant:
        self._serial += 1
        choices: dict[str, Any] = {
            "grantee_key": self.key.public_key,
            "operation": operation,
            "expires_ms": self.clock.now_ms() + HOUR_MS,
            "serial": self._serial.to_bytes(16, "big"),
        }
        return issue_grant(contract.terms, self.key, **(choices | changes))

    async def consign(
        self,
        farm: Farm,
        contract: Contract,
        data: bytes,
        *,
        grant: SignedGrant | None = None,
        leaves: bytes | None = None,
    ) -> SignedStorageReceipt:
        """Bring a shard; the receipt, verified."""
        grant = self.grant(contract, Operation.CONSIGN) if grant is None else grant
        leaves = b"".join(leaves_of(memoryview(data))) if leaves is None else leaves
        request = encode(Consign(contract, grant))
        async with self.endpoint.exchange(farm.peer, Method.CONSIGN, request, deadline_seconds=DEADLINE) as exchange:
            ready = decode(ConsignReady, await exchange.next_reply())
            if ready.receipt is not None:
                return ready.receipt
            await exchange.send(leaves)
            await exchange.send(memoryview(data)[ready.first_unit * UNIT_BYTES :])
            await exchange.finish()
            receipt = decode(SignedStorageReceipt, await exchange.next_reply())
        verify_storage_receipt(receipt, contract)
        return receipt

    async def begin_consign(self, exchange: Exchange, data: bytes, size: int) -> int:
        """Send the leaf list and `size` bytes, and no more; where the farmer wanted to begin."""
        ready = decode(ConsignReady, await exchange.next_reply())
        await exchange.send(b"".join(leaves_of(memoryview(data))))
        begin = ready.first_unit * UNIT_BYTES
        await exchange.send(memoryview(data)[begin : begin + size])
        return ready.first_unit

    async def store(self, farm: Farm, data: bytes, **changes: object) -> Contract:
        """Claim, countersign and consign."""
        contract = await self.agree(farm, data, **changes)
        await self.consign(farm, contract, data)
        return contract

    async def retrieve(
        self, farm: Farm, grant: SignedGrant, first_unit: int = 0, end_unit: int | None = None
    ) -> tuple[bytes, bytes]:
        """Leaf list and bytes."""
        asked = encode(Retrieve(grant, first_unit, 2**32 - 1 if end_unit is None else end_unit))
        async with self.endpoint.exchange(farm.peer, Method.RETRIEVE, asked, deadline_seconds=DEADLINE) as exchange:
            size = decode(RetrieveReady, await exchange.next_reply()).size_bytes
            leaves = bytearray(32 * unit_count(size))
            await exchange.receive_into(memoryview(leaves))
            end = size if end_unit is None else min(size, end_unit * UNIT_BYTES)
            data = bytearray(end - first_unit * UNIT_BYTES)
            await exchange.receive_into(memoryview(data))
            await exchange.expect_end()
        return bytes(leaves), bytes(data)

    async def fetch(self, farm: Farm, contract: Contract, **changes: Any) -> bytes:
        """The whole shard under a grant of its own."""
        return (await self.retrieve(farm, self.grant(contract, Operation.RETRIEVE, **changes)))[1]

    async def cancel(self, farm: Farm, *contracts: Contract) -> CancelReply:
        ids = tuple(contract.contract_id for contract in contracts)
        return decode(CancelReply, await self.call(farm, Method.CANCEL, Cancel(ids)))

    # --- audits

    def challenge(
        self, farm: Farm, *contracts: Contract, wanted: int = 8, nonce: int = 1, renter: PublicKey | None = None
    ) -> SignedChallenge:
        """A challenge over the shards of these contracts, signed by this caller."""
        return draw_challenge(
            holding_of(*contracts),
            Parties(NETWORK, self.key.public_key if renter is None else renter, farm.key.public_key),
            self.key,
            nonce=bytes([nonce]) * 32,
            wanted=wanted,
            now_ms=self.clock.now_ms(),
            answer_within_ms=120_000,
        )

    async def audit(
        self, farm: Farm, signed: SignedChallenge, page: int = 0, grants: Sequence[SignedGrant] = ()
    ) -> SignedAnswer:
        reply = await self.call(farm, AuditMethod.AUDIT, Audit(signed, page, tuple(grants)))
        return decode(AuditReply, reply).answer

    async def audit_all(
        self, farm: Farm, signed: SignedChallenge, losses: Sequence[NotedLoss] = (), *, hand_over: bool = True
    ) -> Settled:
        """A whole round: every page, the verdicts, the receipt, which the farmer gets."""
        answers = {
            page: Came(await self.audit(farm, signed, page), self.clock.now_ms())
            for page in range(len(pages_of(signed.challenge)))
        }
        noted = {one.loss.loss.contract_id: one for one in losses}
        settled = settle(signed.challenge, answers, noted, self.key, self.clock.now_ms())
        if hand_over:
            await self.call(farm, AuditMethod.AUDIT_RECEIPT, AuditReceipt(settled.signed, settled.lines))
        return settled

    async def heartbeat(self, farm: Farm, *notes: SignedLossNote, after: bytes = b"") -> HeartbeatReply:
        return decode(HeartbeatReply, await self.call(farm, AuditMethod.HEARTBEAT, Heartbeat(after, notes)))

    # --- moves

    def order(self, old: Contract, new: Contract, to: Farm, *, by: Farm, **grant: Any) -> MoveOrder:
        """To bring the shard of `old`, which `by` holds, to `to`."""
        choices = {"grantee_key": by.key.public_key, "expires_ms": self.clock.now_ms() + DAY_MS} | grant
        allowed = self.grant(new, choices.pop("operation", Operation.CONSIGN), **choices)
        assert to.endpoint.contact is not None
        return MoveOrder(old.contract_id, new, allowed, to.endpoint.contact)

    async def move(self, farm: Farm, *orders: MoveOrder) -> tuple[MoveAnswer, ...]:
        return decode(MoveReply, await self.call(farm, MoveMethod.MOVE, Move(orders))).answers

    async def listed(self, farm: Farm, after: bytes = b"", limit: int = 256) -> ContractPage:
        return decode(ContractPage, await self.call(farm, Method.LIST_CONTRACTS, ListContracts(after, limit)))


def holding_of(*contracts: Contract) -> Holding:
    """What a challenge over these contracts is drawn from."""
    return Holding(HeldShard(one.contract_id, one.terms.shard_root, one.terms.shard_size_bytes) for one in contracts)


RENTER_NUMBER, FARMER_NUMBER, OTHER_NUMBER = 1, 2, 3
assert key(RENTER_NUMBER) == RENTER


def public(number: int) -> PublicKey:
    return key(number).public_key
