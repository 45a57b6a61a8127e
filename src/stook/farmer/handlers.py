"""What each method about contracts does: CLAIM, RENEW, CANCEL, LIST_CONTRACTS; and the farmer's own announcement.

Every handler decodes, asks a pure judge, writes down what the farmer will be bound by, and only then speaks. The two
methods that move shard bytes are in `transfers`.
"""

from __future__ import annotations

import asyncio

from stook.codec import decode, encode
from stook.contracts.contract import Contract, Terms
from stook.contracts.lifecycle import OVER, RESERVING, ContractState, Event
from stook.contracts.market import Prices, quoted
from stook.contracts.messages import (
    Announce,
    Cancel,
    CancelAnswer,
    CancelReply,
    CapacityReply,
    CapacityRequest,
    Claim,
    ClaimAnswer,
    ClaimReply,
    ContactsReply,
    ContactsRequest,
    ContractPage,
    Done,
    ListContracts,
    ListedContract,
    Renew,
    RenewReply,
)
from stook.contracts.negotiation import sign_offer
from stook.contracts.receipt import SignedEraseReceipt
from stook.contracts.renewal import check_renewal
from stook.errors import CorruptionError, NotFoundError, ReasonCode, RefusedError
from stook.farmer.admission import Accept, Decision, Situation, decide_batch
from stook.farmer.capacity import CapacityView
from stook.farmer.herald import Herald
from stook.farmer.losses import declare_lost
from stook.farmer.market import MarketDesk
from stook.farmer.parts import Parts
from stook.farmer.pulse import Spacing
from stook.farmer.reaper import WIPE_DEADLINE_SECONDS, wipe
from stook.ids import ContractId, PublicKey, ShardRoot, Signature
from stook.storage.ports import HeldContract
from stook.wire.endpoint import Exchange

RENEW_DEADLINE_SECONDS = 60.0
RENEWALS_APART_SECONDS = 5.0
"""Each revision is written to the shard's file and synced, which no renter needs to have done all the time."""
RENEWALS_REMEMBERED = 65_536


class ContractDesk:
    """Serves the methods that make, change and end contracts."""

    def __init__(self, parts: Parts, herald: Herald, market: MarketDesk | None = None) -> None:
        self._parts = parts
        self._herald = herald
        self._market = market
        self._claiming = asyncio.Lock()
        self._renewals = Spacing(RENEWALS_APART_SECONDS, RENEWALS_REMEMBERED, "this contract was renewed just now")

    # --- CLAIM -------------------------------------------------------------------------------------------------------

    async def claim(self, exchange: Exchange, payload: bytes) -> None:
        """Judge a batch of drafts, reserve the accepted ones in one durable transaction, answer with signatures."""
        drafts = decode(Claim, payload).drafts
        if self._parts.till is not None:
            self._parts.till.admit(exchange.peer_key)
        async with self._claiming:  # two claims judged by one picture could promise the same room twice
            prices = self._market.tariff(exchange.peer_key, len(drafts)) if self._market is not None else None
            answers = await self._parts.offload(lambda: self._judge_and_reserve(drafts, exchange.peer_key, prices))
            accepted = sum(1 for answer in answers if not answer.code)
            if self._market is not None and prices is not None:
                self._market.spend(exchange.peer_key, accepted)
        for answer in answers:
            if answer.code:
                self._parts.tally.refusals[ReasonCode(answer.code)] += 1
        self._parts.log.debug("claim judged", drafts=len(drafts), accepted=accepted, renter=exchange.peer_id.hex())
        await exchange.reply(encode(ClaimReply(answers)))

    def _judge_and_reserve(
        self, drafts: tuple[Terms, ...], asker: PublicKey, prices: Prices | None
    ) -> tuple[ClaimAnswer, ...]:
        parts, contracts = self._parts, self._parts.contracts
        view = CapacityView.of(parts.settings.capacity, contracts.totals(), parts.free_disk())
        held: dict[ContractId, HeldContract] = {}
        taken: set[ShardRoot] = set()
        unfilled: dict[ShardRoot, ContractId] = {}
        for draft in drafts:
            if (known := contracts.get(draft.contract_id)) is not None:
                held[draft.contract_id] = known
            if (other := contracts.by_root(draft.shard_root)) is not None:
                if self._may_replace(other, asker):
                    unfilled[draft.shard_root] = other.contract_id
                else:
                    taken.add(draft.shard_root)
        announcement = self._herald.announcement(view)
        situation = Situation(
            announcement=announcement if prices is None else quoted(announcement, prices),
            asker=asker,
            view=view,
            unfilled_bytes=contracts.reserved_by(asker),
            now_ms=parts.clock.now_ms(),
            held=held,
            taken_roots=frozenset(taken),
            leaving=bool(parts.leaving.by_ms),
        )
        decisions = decide_batch(drafts, parts.settings.terms, situation)
        signatures = [
            sign_offer(decision.terms, parts.key) if isinstance(decision, Accept) else Signature(b"")
            for decision in decisions
        ]
        fresh = [
            Contract(decision.terms, signature, Signature(b""))
            for decision, signature in zip(decisions, signatures, strict=True)
            if isinstance(decision, Accept) and not decision.again
        ]
        if fresh:
            replaced = [unfilled[one.terms.shard_root] for one in fresh if one.terms.shard_root in unfilled]
            contracts.reserve(fresh, replacing=replaced)
        return tuple(map(_answer, decisions, signatures))

    def _may_replace(self, held: HeldContract, asker: PublicKey) -> bool:
        """Whether a renter's newer draft takes the place of its own reservation that nothing was brought under.

        The reply to the earlier claim was lost, or its renter gave it up and could not tell us.
        """
        terms = held.contract.terms
        return held.state in RESERVING and terms.renter_key == asker and not self._parts.gate.busy(terms.shard_root)

    # --- RENEW -------------------------------------------------------------------------------------------------------

    async def renew(self, exchange: Exchange, payload: bytes) -> None:
        """Sign the next revision of a contract whose shard is stored; the shard file carries it before we speak."""
        request = decode(Renew, payload)
        contract_id = request.terms.contract_id
        if self._parts.till is not None:
            self._parts.till.admit(exchange.peer_key)
        async with self._parts.gate.hold(request.terms.shard_root, deadline_seconds=RENEW_DEADLINE_SECONDS):
            try:
                signature = await self._parts.offload(lambda: self._renew(contract_id, request, exchange.peer_key))
            except (NotFoundError, CorruptionError) as damage:
                held = await self._parts.offload(lambda: self._parts.contracts.get(contract_id))
                if held is not None:
                    await declare_lost(self._parts, held, str(damage))
                raise RefusedError(ReasonCode.SHARD_LOST, "the shard was lost here") from None
        await exchange.reply(encode(RenewReply(signature)))

    def _renew(self, contract_id: ContractId, request: Renew, caller: PublicKey) -> Signature:
        parts = self._parts
        held = parts.contracts.get(contract_id)
        if held is None or held.state in OVER:
            raise RefusedError(ReasonCode.UNKNOWN_CONTRACT, "no such contract is in force")
        if held.contract.terms == request.terms and caller == request.terms.renter_key:
            return held.contract.farmer_signature  # asked again: the first reply was lost
        if held.state is ContractState.LOST:
            raise RefusedError(ReasonCode.SHARD_LOST, "this shard was lost here")
        if held.state is not ContractState.ACTIVE:
            raise RefusedError(ReasonCode.NOT_STORED_YET, "only a stored shard's contract is renewed")
        leaving_by_ms = parts.leaving.by_ms
        if leaving_by_ms and request.terms.end_ms > max(leaving_by_ms, held.contract.terms.end_ms):
            raise RefusedError(ReasonCode.LEAVING, f"this farmer leaves by {leaving_by_ms}")
        check_renewal(
            held.contract,
            request,
            announcement=self._herald.announcement(),
            caller_key=caller,
            now_ms=parts.clock.now_ms(),
        )
        self._renewals.admit(contract_id, parts.clock.monotonic())
        signature = parts.key.sign(request.terms.digest)
        renewed = Contract(request.terms, signature, request.renter_signature)
        parts.shards.append_contract(request.terms.shard_root, encode(renewed))
        parts.contracts.put(HeldContract(renewed, ContractState.ACTIVE))
        return signature

    # --- CANCEL ------------------------------------------------------------------------------------------------------

    async def cancel(self, exchange: Exchange, payload: bytes) -> None:
        """Erase shards, or release reservations, for their renter alone; each with a signed receipt or a reason."""
        answers = []
        for contract_id in decode(Cancel, payload).contract_ids:
            try:
                receipt = await self._cancel_one(contract_id, exchange.peer_key)
            except RefusedError as refusal:
                self._parts.tally.refusals[refusal.code] += 1
                answers.append(CancelAnswer(contract_id, refusal.code, refusal.detail[:200], None))
            else:
                answers.append(CancelAnswer(contract_id, 0, "", receipt))
        await exchange.reply(encode(CancelReply(tuple(answers))))

    async def _cancel_one(self, contract_id: ContractId, caller: PublicKey) -> SignedEraseReceipt:
        parts = self._parts
        held = await self._own(contract_id, caller)
        if isinstance(held, SignedEraseReceipt):
            return held
        root = held.contract.terms.shard_root
        async with parts.gate.hold(root, deadline_seconds=WIPE_DEADLINE_SECONDS, supersede=True):
            held = await self._own(contract_id, caller)  # it may have gone, or changed hands, before we were let in
            if isinstance(held, SignedEraseReceipt):
                return held
            event = None if held.state in OVER else Event.CANCEL
            now_held, now_ms = held, parts.clock.now_ms()
            receipt = await parts.offload(lambda: wipe(parts, now_held, event, now_ms))
        parts.lost.discard(contract_id)
        parts.erased.remember(contract_id, caller, receipt)
        parts.log.info("contract cancelled", contract=contract_id.hex(), state=held.state.value)
        return receipt

    async def _own(self, contract_id: ContractId, caller: PublicKey) -> HeldContract | SignedEraseReceipt:
        held = await self._parts.offload(lambda: self._parts.contracts.get(contract_id))
        if held is None:
            if (receipt := self._parts.erased.receipt(contract_id, caller)) is not None:
                return receipt
            raise RefusedError(ReasonCode.UNKNOWN_CONTRACT, "no such contract")
        if held.contract.terms.renter_key != caller:
            raise RefusedError(ReasonCode.NOT_YOUR_CONTRACT, "only its renter cancels a contract")
        return held

    # --- LIST_CONTRACTS ----------------------------------------------------------------------------------------------

    async def list_contracts(self, exchange: Exchange, payload: bytes) -> None:
        """The caller's own contracts, a page at a time, in order of id."""
        request = decode(ListContracts, payload)
        caller = exchange.peer_key
        found = await self._parts.offload(
            lambda: self._parts.contracts.owned_by(caller, request.after, request.limit + 1)
        )
        page = tuple(
            ListedContract(held.contract, held.state is ContractState.ACTIVE) for held in found[: request.limit]
        )
        await exchange.reply(encode(ContractPage(page, len(found) > request.limit)))


def _answer(decision: Decision, signature: Signature) -> ClaimAnswer:
    contract_id = decision.terms.contract_id
    if isinstance(decision, Accept):
        return ClaimAnswer(contract_id, 0, "", signature)
    return ClaimAnswer(contract_id, decision.code, decision.detail[:200], signature)


class NoticeDesk:
    """Serves the methods by which nodes learn of farmers: ANNOUNCE, CONTACTS, CAPACITY."""

    def __init__(self, parts: Parts, herald: Herald) -> None:
        self._parts = parts
        self._herald = herald
        self._turn = 0

    async def announce(self, exchange: Exchange, payload: bytes) -> None:
        """Keep another farmer's announcement, if it is what it says."""
        request = decode(Announce, payload)
        self._parts.book.add(request.announcement, now_ms=self._parts.clock.now_ms())
        await exchange.reply(encode(Done()))

    async def contacts(self, exchange: Exchange, payload: bytes) -> None:
        """Say whom we know; our own announcement first."""
        limit = decode(ContactsRequest, payload).limit
        own = await self._herald.signed()
        # A place that moves on with every question stands in for dice: in the long run all are named.
        known = self._parts.book.some(limit, now_ms=self._parts.clock.now_ms(), skip=self._turn)
        self._turn += limit
        others = [one for one in known if one.announcement.contact.node_id != self._parts.key.node_id]
        await exchange.reply(encode(ContactsReply((own, *others)[:limit])))

    async def capacity(self, exchange: Exchange, payload: bytes) -> None:
        """Our own announcement, made now."""
        decode(CapacityRequest, payload)
        await exchange.reply(encode(CapacityReply(await self._herald.signed())))
