"""Target: a farmer's handlers, asked by renters that hold valid keys and say anything.

The farmer holds one shard and one reservation. Requests are good ones with fields changed and signed again by whoever
sends them, or with their bytes spoiled; raw bytes are right, wrong or cut short. Every answer is a reply that decodes,
or a refusal with a code, and the farmer's books stay true.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
from dataclasses import replace
from functools import cache
from typing import Any

import structlog
from msgspec import structs

from contract_samples import CLIENT, FARMER, NETWORK, OTHER, RENTER, signed_announcement
from farm_samples import (
    ManualClock,
    RecordingExchange,
    StandingEndpoint,
    contact_of,
    draft_for,
    parts,
    publish,
    root_of,
    settings,
    shard_bytes,
)
from fuzz_base import Memory, Tape, target, vary
from stook.audits.challenge import Parties, SignedChallenge, draw_challenge
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
from stook.audits.receipt import SignedBatchReceipt, settle
from stook.codec import Record, decode, encode
from stook.contracts.contract import Contract, Terms
from stook.contracts.grant import Operation, SignedGrant, issue_grant
from stook.contracts.lifecycle import ContractState
from stook.contracts.loss import note_loss
from stook.contracts.messages import (
    Announce,
    Cancel,
    CancelReply,
    CapacityReply,
    CapacityRequest,
    Claim,
    ClaimReply,
    Consign,
    ConsignReady,
    ContactsReply,
    ContactsRequest,
    ContractPage,
    Done,
    ListContracts,
    Method,
    Renew,
    RenewReply,
    Retrieve,
    RetrieveReady,
)
from stook.contracts.move import Move, MoveMethod, MoveOrder, MoveReply
from stook.contracts.negotiation import DAY_MS, HOUR_MS, countersign, sign_offer
from stook.contracts.receipt import SignedStorageReceipt
from stook.errors import StookError
from stook.farmer.admission import FarmerTerms
from stook.farmer.audit_desk import AuditDesk
from stook.farmer.handlers import ContractDesk, NoticeDesk
from stook.farmer.herald import Herald
from stook.farmer.mover import Mover
from stook.farmer.refusals import refusal_of
from stook.farmer.settings import TransferLimits
from stook.farmer.transfers import TransferDesk
from stook.identity.keys import NodeKey, verify
from stook.ids import Signature
from stook.merkle import UNIT_BYTES, leaves_of
from stook.overlay.contact_book import ContactBook
from stook.storage.ports import HeldContract

STORED, RESERVED = shard_bytes(UNIT_BYTES, 1), shard_bytes(4 * UNIT_BYTES, 2)
NEW = tuple(shard_bytes(UNIT_BYTES, seed) for seed in range(3, 9))
ALLOCATED = 9 * UNIT_BYTES
FARM = settings(
    ALLOCATED,
    terms=FarmerTerms(max_unfilled_bytes_per_renter=7 * UNIT_BYTES),
    transfers=TransferLimits(block_bytes=UNIT_BYTES),
)
Asked = Method | AuditMethod | MoveMethod
ASKED: tuple[Asked, ...] = (
    *Method,
    AuditMethod.AUDIT,
    AuditMethod.AUDIT_RECEIPT,
    AuditMethod.HEARTBEAT,
    MoveMethod.MOVE,
)
REPLIES: dict[Asked, tuple[type[Record], ...]] = {
    Method.ANNOUNCE: (Done,),
    Method.CONTACTS: (ContactsReply,),
    Method.CAPACITY: (CapacityReply,),
    Method.CLAIM: (ClaimReply,),
    Method.CONSIGN: (ConsignReady, SignedStorageReceipt),
    Method.RETRIEVE: (RetrieveReady,),
    Method.RENEW: (RenewReply,),
    Method.CANCEL: (CancelReply,),
    Method.LIST_CONTRACTS: (ContractPage,),
    AuditMethod.AUDIT: (AuditReply,),
    AuditMethod.AUDIT_RECEIPT: (Done,),
    AuditMethod.HEARTBEAT: (HeartbeatReply,),
    MoveMethod.MOVE: (MoveReply,),
}


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    return loop


class Farmyard:
    """A farmer over memory stores and the hostile renters before its gate."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.clock = ManualClock()
        quiet = structlog.wrap_logger(
            structlog.PrintLogger(), wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
        )
        self.farm = replace(parts(farm=FARM, clock=self.clock), book=ContactBook(NETWORK), log=quiet)
        herald = Herald(self.farm, StandingEndpoint(contact_of(FARMER)), (), lambda: True)  # type: ignore[arg-type]
        contracts, notices = ContractDesk(self.farm, herald), NoticeDesk(self.farm, herald)
        transfers = TransferDesk(self.farm)
        audits = AuditDesk(self.farm)
        self.answered: tuple[SignedChallenge, SignedAnswer] | None = None
        self.handlers: dict[Asked, Any] = {
            Method.ANNOUNCE: notices.announce,
            Method.CONTACTS: notices.contacts,
            Method.CAPACITY: notices.capacity,
            Method.CLAIM: contracts.claim,
            Method.CONSIGN: transfers.consign,
            Method.RETRIEVE: transfers.retrieve,
            Method.RENEW: contracts.renew,
            Method.CANCEL: contracts.cancel,
            Method.LIST_CONTRACTS: contracts.list_contracts,
            AuditMethod.AUDIT: audits.audit,
            AuditMethod.AUDIT_RECEIPT: audits.receipt,
            AuditMethod.HEARTBEAT: audits.heartbeat,
            MoveMethod.MOVE: Mover(self.farm, StandingEndpoint(None), lambda: None).move,  # type: ignore[arg-type]
        }
        self.farm.leaving.by_ms = tape.number(1)
        self.stored = self.sign(draft_for(root_of(STORED), len(STORED)))
        self.reserved = self.sign(draft_for(root_of(RESERVED), len(RESERVED)))
        publish(self.farm.shards, STORED, self.stored)
        self.farm.contracts.put(HeldContract(self.stored, ContractState.ACTIVE))
        self.farm.contracts.reserve([structs.replace(self.reserved, renter_signature=Signature(b""))])

    @staticmethod
    def sign(terms: Terms) -> Contract:
        return countersign(terms, sign_offer(terms, FARMER), RENTER)

    # --- what is asked -----------------------------------------------------------------------------------------------

    def maybe_vary(self, value: Any) -> Any:
        return vary(value, self.tape) if self.tape.number(1) else value

    def grant(self, contract: Contract, operation: Operation, grantee: NodeKey = RENTER) -> SignedGrant:
        """A grant with its fields changed and signed again."""
        good = issue_grant(
            contract.terms,
            RENTER,
            grantee_key=grantee.public_key,
            operation=operation,
            expires_ms=self.clock.at_ms + HOUR_MS,
            serial=bytes([self.tape.number(3)]) * 16,
        )
        grant = self.maybe_vary(good.grant)
        return SignedGrant(grant, self.tape.pick((RENTER, RENTER, RENTER, OTHER)).sign(grant.digest))

    def challenge(self, signer: NodeKey) -> SignedChallenge:
        """A challenge over the stored shard and the reserved one."""
        holding = Holding(
            HeldShard(one.contract_id, one.terms.shard_root, one.terms.shard_size_bytes)
            for one in self.tape.pick(((self.stored,), (self.stored, self.reserved)))
        )
        return draw_challenge(
            holding,
            Parties(NETWORK, RENTER.public_key, FARMER.public_key),
            signer,
            nonce=bytes([self.tape.number(3)]) * 32,
            wanted=1 + self.tape.number(4),
            now_ms=self.clock.at_ms,
            answer_within_ms=60_000,
        )

    def batch_receipt(self) -> AuditReceipt:
        """A receipt for the challenge that was answered last, or for another, with fields changed."""
        signed, answer = self.answered or (self.challenge(RENTER), None)
        answers = {} if answer is None else {answer.head.page: Came(answer, self.clock.at_ms)}
        signer = RENTER if signed.challenge.auditor_key == RENTER.public_key else CLIENT
        now_ms = max(self.clock.at_ms, signed.challenge.sent_at_ms)
        settled = settle(signed.challenge, answers, {}, signer, now_ms)
        receipt = self.maybe_vary(settled.signed.receipt)
        return AuditReceipt(SignedBatchReceipt(receipt, signer.sign(receipt.digest)), settled.lines)

    def request(self, method: Asked, caller: NodeKey) -> Record:
        """A request of that method, good but for what was changed."""
        tape, now_ms = self.tape, self.clock.at_ms
        contract = tape.pick((self.stored, self.reserved))
        match method:
            case Method.CLAIM:
                times = {"begin_ms": now_ms, "end_ms": now_ms + 60 * DAY_MS, "consign_by_ms": now_ms + HOUR_MS}
                shards = [tape.pick((*NEW, STORED, RESERVED)) for _ in range(1 + tape.number(3))]
                drafts = [draft_for(root_of(data), len(data), **times) for data in shards]
                return Claim(tuple(self.maybe_vary(draft) for draft in drafts))
            case Method.CONSIGN:
                return Consign(self.maybe_vary(contract), self.grant(contract, Operation.CONSIGN))
            case Method.RETRIEVE:
                return Retrieve(self.grant(contract, Operation.RETRIEVE), tape.number(2), tape.number(2**32 - 1))
            case Method.RENEW:
                newer = structs.replace(
                    contract.terms, revision=1, origin=contract.contract_id, end_ms=contract.terms.end_ms + DAY_MS
                )
                newer = self.maybe_vary(newer)
                consent = tape.pick((b"", RENTER.sign(newer.consent_digest)))
                return Renew(newer, tape.pick((RENTER, OTHER)).sign(newer.digest), consent)
            case Method.CANCEL:
                return self.maybe_vary(Cancel((contract.contract_id,) * (1 + tape.number(2))))
            case Method.LIST_CONTRACTS:
                return self.maybe_vary(ListContracts(b"", 1 + tape.number(255)))
            case Method.ANNOUNCE:
                return self.maybe_vary(Announce(signed_announcement()))
            case Method.CONTACTS:
                return self.maybe_vary(ContactsRequest(1 + tape.number(255)))
            case Method.CAPACITY:
                return CapacityRequest()
            case AuditMethod.AUDIT:
                auditor = caller if caller in (RENTER, CLIENT) else RENTER
                challenge = self.maybe_vary(self.challenge(auditor).challenge)
                signed = SignedChallenge(challenge, auditor.sign(challenge.digest))
                grants = [self.grant(self.stored, Operation.AUDIT)] * tape.number(2)
                self.asked = signed
                return Audit(signed, tape.pick((0, 0, 0, 1)), tuple(grants))
            case AuditMethod.AUDIT_RECEIPT:
                return self.batch_receipt()
            case AuditMethod.HEARTBEAT:
                losses = self.farm.contracts.audits.unnoted(RENTER.public_key, b"", 9)
                notes = [note_loss(loss, caller, now_ms).note for loss in losses]
                return self.maybe_vary(Heartbeat(b"", tuple(notes)))
            case MoveMethod.MOVE:
                return Move((self.order(), self.maybe_vary(self.order()))[: 1 + tape.number(1)])
        raise AssertionError(method)

    def order(self) -> MoveOrder:
        """The stored shard, or another, to a second farmer, with fields changed."""
        terms = structs.replace(self.stored.terms, farmer_key=OTHER.public_key)
        new = countersign(terms, sign_offer(terms, OTHER), RENTER)
        grant = self.grant(new, Operation.CONSIGN, FARMER)
        return self.maybe_vary(MoveOrder(self.stored.contract_id, new, grant, contact_of(OTHER)))

    def raw(self) -> bytes:
        """The leaf list and units that follow a CONSIGN; right, wrong or cut short."""
        data = self.tape.pick((RESERVED, RESERVED, STORED))
        raw = b"".join(leaves_of(memoryview(data))) + data
        return raw if self.tape.number(1) else self.tape.spoiled(raw)

    # --- asking ------------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """One request of one caller, and what the farmer made of it."""
        tape = self.tape
        method = tape.pick(ASKED)
        caller: NodeKey = tape.pick((RENTER, RENTER, OTHER, CLIENT))
        if tape.number(15) == 15:
            self.spoil()
        payload = encode(self.request(method, caller))
        if tape.number(3) == 3:
            payload = tape.spoiled(payload)
        exchange = RecordingExchange(caller, self.raw() if method is Method.CONSIGN else b"")
        try:
            _loop().run_until_complete(self.handlers[method](exchange, payload))
        except StookError as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise AssertionError(f"{method} ends in {error!r}, which the peer would hear as INTERNAL") from error
        for kind, reply in zip(REPLIES[method], exchange.replies, strict=False):
            said = decode(kind, reply)
            if isinstance(said, AuditReply):
                self.answered = self.asked, said.answer
        assert len(exchange.replies) <= len(REPLIES[method])
        assert len(exchange.sent) <= len(RESERVED) + 32 * 4
        self.audit()

    def spoil(self) -> None:
        """The disk changes a bit of the shard that is stored, if it is there."""
        shard = self.farm.shards._published.get(root_of(STORED))  # type: ignore[attr-defined]
        if shard is not None:
            shard.data[0] = STORED[0] ^ 1

    def audit(self) -> None:
        """The farmer's books: nothing beyond its room, nothing that it did not sign, no shard that is not whole."""
        farm = self.farm
        totals = farm.contracts.totals()
        assert totals.reserved_bytes + totals.stored_bytes <= ALLOCATED
        for held in farm.contracts.all():
            terms = held.contract.terms
            assert verify(FARMER.public_key, terms.digest, held.contract.farmer_signature)
            if held.state is ContractState.ACTIVE:
                assert verify(terms.renter_key, terms.digest, held.contract.renter_signature)
                assert farm.shards.find(terms.shard_root) is not None
                into = bytearray(terms.shard_size_bytes)
                farm.shards.read_units(terms.shard_root, 0, memoryview(into))
                assert root_of(bytes(into)) == terms.shard_root or into[0] == STORED[0] ^ 1
            if held.state is ContractState.LOST and farm.contracts.audits.loss(held.contract_id) is None:
                raise AssertionError("a loss that is not declared")


@target(
    "farmer.requests",
    seeds=lambda: (
        [bytes(length) for length in (0, 20, 60)]
        + [bytes((at * step + step) % 256 for at in range(150)) for step in (1, 3, 7, 11, 13, 29, 31, 77)]
    ),
    covers=(
        "stook.farmer.service.Farmer.start",
        "stook.contracts.move.check_order",
        "stook.farmer.readback.read_block",
    ),
    memory=Memory(64, 8 << 20),
    weight=60,
)
def requests(data: bytes) -> None:
    """Up to twelve requests, time passing between them."""
    yard = Farmyard(Tape(data))
    for _ in range(12):
        if yard.tape.over:
            break
        yard.clock.at_ms += yard.tape.pick((0, 0, 0, 1000, HOUR_MS, 90 * DAY_MS))
        yard.ask()
