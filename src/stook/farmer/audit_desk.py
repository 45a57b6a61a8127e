"""What a farmer does when it is audited: AUDIT, AUDIT_RECEIPT, HEARTBEAT (`docs/protocol/audits.md`).

What a page costs follows from the page alone: contracts are looked up one by one, of their shards the units asked for
and the leaf lists are read. Before it speaks, the farmer has written down what it charges, counts, and has lost.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from stook.audits.challenge import (
    Ask,
    Challenge,
    check_access,
    check_challenge,
    pages_of,
    window_of,
)
from stook.audits.messages import Audit, AuditReceipt, AuditReply, Heartbeat, HeartbeatReply
from stook.audits.proof import AnswerKind, Item, SignedAnswer, prove_ask, sign_answer
from stook.audits.receipt import RECEIPT_VERSION, BatchReceipt, verify_lines, verify_receipt
from stook.codec import decode, encode
from stook.contracts.contract import Contract
from stook.contracts.grant import SignedGrant, spendings
from stook.contracts.lifecycle import ContractState
from stook.contracts.loss import SignedLoss
from stook.contracts.messages import MAX_BATCH, Done
from stook.errors import EnvironmentFault, ReasonCode, RefusedError
from stook.farmer.gate import ShardGate
from stook.farmer.lanes import Lanes
from stook.farmer.losses import declaration_of, declare_lost, keep_notes
from stook.farmer.parts import Parts
from stook.farmer.pulse import PulseBook
from stook.farmer.readback import is_damaged
from stook.farmer.settings import TransferLimits
from stook.ids import ContractId, PublicKey, ShardRoot
from stook.merkle import UNIT_BYTES
from stook.storage.audit_ports import UnitsAsked
from stook.storage.ports import Charge, ContractStore, HeldContract, ShardStore
from stook.wire.endpoint import Exchange

CONFESS_DEADLINE_SECONDS = 60.0
MAX_REMEMBERED_PAGES = 4096


class StoreKeeper:
    """What `prove_ask` needs, over the farmer's stores. Only contracts that were admitted are answered for."""

    def __init__(
        self,
        contracts: ContractStore,
        shards: ShardStore,
        admitted: Mapping[ContractId, Contract],
        declaration: Callable[[HeldContract], SignedLoss],
    ) -> None:
        self._contracts = contracts
        self._shards = shards
        self._admitted = admitted
        self._declaration = declaration

    def standing(self, ask: Ask) -> AnswerKind | SignedLoss:
        """How the contract stands at this moment: it may have changed since the request was admitted."""
        admitted = self._admitted.get(ask.contract_id)
        held = None if admitted is None else self._contracts.get(ask.contract_id)
        if admitted is None or held is None or held.contract.terms.renter_key != admitted.terms.renter_key:
            return AnswerKind.UNKNOWN
        if held.state is ContractState.LOST:
            return self._declaration(held)
        return AnswerKind.PROOF if held.state is ContractState.ACTIVE else AnswerKind.UNKNOWN

    def read_leaves(self, root: ShardRoot) -> bytes:
        """The leaf list."""
        return self._shards.read_leaves(root)

    def read_units(self, root: ShardRoot, first_unit: int, into: memoryview) -> int:
        """The units, as they stand on the disk."""
        return self._shards.read_units(root, first_unit, into)

    def salted_leaves(self, ask: Ask) -> Sequence[bytes]:
        """None: contracts do not offer salted audits yet."""
        return ()

    def lose(self, ask: Ask) -> SignedLoss:
        """Never here: a loss is written down at the shard's gate, by the desk."""
        raise _DamagedError(ask.contract_id.hex())


class _DamagedError(Exception):
    """The shard did not give what its contract says."""


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A page that this farmer works for."""

    digest: bytes
    """The challenge's."""
    asks: tuple[Ask, ...]
    held: Mapping[ContractId, HeldContract]
    """Contracts among them that are stored or lost here."""
    charges: tuple[Charge, ...]

    @property
    def contracts(self) -> dict[ContractId, Contract]:
        return {contract_id: held.contract for contract_id, held in self.held.items()}


class AuditDesk:
    """Serves the methods by which renters find out whether their shards are held."""

    def __init__(self, parts: Parts) -> None:
        limits = parts.settings.audits
        self._parts = parts
        self._challenges = ShardGate()
        self._pulses = PulseBook(limits)
        # The lanes' turns and bounds; their buffers are pages that nothing touches.
        turns = TransferLimits(
            max_transfers=limits.max_pages,
            max_waiting=limits.max_waiting,
            block_bytes=UNIT_BYTES,
            retry_after_ms=limits.retry_after_ms,
        )
        self._lanes = Lanes(turns, "audits")
        self._again: OrderedDict[tuple[bytes, int], int] = OrderedDict()

    # --- AUDIT -------------------------------------------------------------------------------------------------------

    async def audit(self, exchange: Exchange, payload: bytes) -> None:
        """Prove one page of a challenge: read what was drawn, sign it, count it, and only then answer."""
        parts, request = self._parts, decode(Audit, payload)
        challenge = request.challenge.challenge
        page = await parts.offload(lambda: self._admit(request, exchange.peer_key))
        seconds = max(0, challenge.answer_by_ms - parts.clock.now_ms()) / 1000
        try:
            async with (
                asyncio.timeout(seconds),
                self._challenges.hold(page.digest, deadline_seconds=seconds + 1),
                self._lanes.lane(exchange.peer_id),
            ):
                answer = await self._answer(request, page)
        except TimeoutError:
            raise RefusedError(ReasonCode.STALE, "the time to answer went by") from None
        await exchange.reply(encode(AuditReply(answer)))

    def _admit(self, request: Audit, caller: PublicKey) -> _Admitted:
        """Everything that can be refused before anything is read. Raises `RefusedError`."""
        parts, signed = self._parts, request.challenge
        challenge, now_ms = signed.challenge, parts.clock.now_ms()
        check_challenge(
            signed,
            request.page,
            network=parts.network,
            farmer_key=parts.key.public_key,
            caller_key=caller,
            now_ms=now_ms,
        )
        asks = tuple(challenge.asks[at] for at in pages_of(challenge)[request.page])
        found = ((ask.contract_id, parts.contracts.get(ask.contract_id)) for ask in asks)
        held = {
            contract_id: one
            for contract_id, one in found
            if one is not None and one.state in (ContractState.ACTIVE, ContractState.LOST)
        }
        contracts = {contract_id: one.contract for contract_id, one in held.items()}
        check_access(challenge, request.page, contracts, request.grants, now_ms=now_ms)
        return _Admitted(challenge.digest, asks, held, _charges(asks, held, request.grants))

    async def _answer(self, request: Audit, page: _Admitted) -> SignedAnswer:
        """Whatever changed while the page waited for its turn, the keeper looks at each contract again."""
        parts = self._parts
        charges = await parts.offload(lambda: self._charge(request.page, page))
        if charges is None:
            self._count_again(page.digest, request.page)
        try:
            keeper = StoreKeeper(parts.contracts, parts.shards, page.contracts, partial(declaration_of, parts))
            drawn = await parts.offload(lambda: [prove_or_none(ask, keeper) for ask in page.asks])
            items = [
                await self._confess(ask, keeper) if item is None else item
                for ask, item in zip(page.asks, drawn, strict=True)
            ]
        except BaseException:
            await parts.offload(lambda: self._refund(charges or ()))
            raise
        # From here on nothing is given back: a caller that leaves at the right moment would have the page for nothing.
        answer, billed = await parts.offload(lambda: self._sign(request, page, tuple(items)))
        parts.tally.audit_pages += 1
        parts.tally.units_proved += sum(len(item.units) for item in items)
        parts.tally.units_billed += billed
        return answer

    async def _confess(self, ask: Ask, keeper: StoreKeeper) -> Item:
        """A shard that did not prove itself: once more alone at its gate, then it is lost, durably, and says so."""
        parts = self._parts
        async with parts.gate.hold(ask.shard_root, deadline_seconds=CONFESS_DEADLINE_SECONDS):
            item = await parts.offload(lambda: prove_or_none(ask, keeper))
            if item is not None:
                return item
            if not await parts.offload(lambda: is_damaged(parts.shards, ask.shard_root)):
                raise EnvironmentFault(f"shard {ask.shard_root.hex()} is sound and could not be read")
            held = await parts.offload(lambda: parts.contracts.get(ask.contract_id))
            if held is not None:
                await declare_lost(parts, held, "it could not be proved")
            return await parts.offload(lambda: prove_ask(ask, keeper))

    def _sign(self, request: Audit, page: _Admitted, items: tuple[Item, ...]) -> tuple[SignedAnswer, int]:
        """The signed page and its units to be paid, counted before it is handed out."""
        parts, challenge = self._parts, request.challenge.challenge
        now_ms = parts.clock.now_ms()
        if now_ms > challenge.answer_by_ms:
            raise RefusedError(ReasonCode.STALE, "the time to answer went by")
        answer = sign_answer(challenge, request.page, items, parts.key, now_ms)
        if not page.held:
            return answer, 0  # about nothing that is here: a stranger leaves no trace
        asked = [
            UnitsAsked(ask.contract_id, window_of(terms, now_ms), len(item.units), terms.audit.leaves_per_interval)
            for ask, item in zip(page.asks, items, strict=True)
            if item.kind is AnswerKind.PROOF and (terms := page.held[ask.contract_id].contract.terms)
        ]
        billed = parts.contracts.audits.add_page(
            request.challenge,
            answer.signed_head,
            asked,
            now_ms=now_ms,
            keep_rounds=parts.settings.audits.keep_rounds_per_renter,
        )
        return answer, billed

    def _charge(self, number: int, page: _Admitted) -> tuple[Charge, ...] | None:
        """Charge the grants; what was charged, or None when this page was answered before: then it is free."""
        if page.held and self._parts.contracts.audits.has_page(page.digest, number):
            return None
        if page.charges and not self._parts.contracts.spend_all(page.charges):
            raise RefusedError(ReasonCode.GRANT_EXHAUSTED, "more units than the grants' budgets have left")
        return page.charges

    def _refund(self, charges: Sequence[Charge]) -> None:
        for charge in charges:
            self._parts.contracts.refund(charge.serial, charge.size_bytes)

    def _count_again(self, digest: bytes, page: int) -> None:
        """An answer may get lost, so it is given again; but not for ever, since it is free."""
        times = self._again.pop((digest, page), 0) + 1
        self._again[digest, page] = times
        if len(self._again) > MAX_REMEMBERED_PAGES:
            self._again.popitem(last=False)
        if times > self._parts.settings.audits.max_again:
            raise RefusedError(ReasonCode.RATE_LIMITED, f"this page was answered {times} times", retry_after_ms=60_000)

    # --- AUDIT_RECEIPT -----------------------------------------------------------------------------------------------

    async def receipt(self, exchange: Exchange, payload: bytes) -> None:
        """Keep what the auditor made of our answers, be it true or false: both are evidence."""
        request = decode(AuditReceipt, payload)
        await self._parts.offload(lambda: self._keep(request, exchange.peer_key))
        self._parts.tally.receipts_kept += 1
        await exchange.reply(encode(Done()))

    def _keep(self, request: AuditReceipt, caller: PublicKey) -> None:
        parts, receipt = self._parts, request.receipt.receipt
        if receipt.version != RECEIPT_VERSION:
            raise RefusedError(ReasonCode.WRONG_VERSION, f"receipt version {receipt.version}, not {RECEIPT_VERSION}")
        if receipt.network != parts.network:
            raise RefusedError(ReasonCode.WRONG_NETWORK, f"a receipt in network {receipt.network}")
        if receipt.farmer_key != parts.key.public_key:
            raise RefusedError(ReasonCode.WRONG_RECIPIENT, "a receipt about another farmer")
        if receipt.auditor_key != caller:
            raise RefusedError(ReasonCode.WRONG_IDENTITY, "a receipt of another auditor")
        verify_receipt(request.receipt)
        verify_lines(receipt, request.lines)
        known = parts.contracts.audits.round(receipt.challenge)
        if known is None:
            raise RefusedError(ReasonCode.UNBOUND_REPLY, "no page of this challenge was answered here")
        if not _is_about(receipt, known.challenge.challenge):
            raise RefusedError(ReasonCode.UNBOUND_REPLY, "the challenge of that digest says something else")
        if not parts.contracts.audits.add_receipt(request.receipt, request.lines):
            raise RefusedError(ReasonCode.UNBOUND_REPLY, "the round was forgotten meanwhile")

    # --- HEARTBEAT ---------------------------------------------------------------------------------------------------

    async def heartbeat(self, exchange: Exchange, payload: bytes) -> None:
        """Say that we are here, what we hold of the caller's, and what we lost of it. Others hear of nothing."""
        parts, request, caller = self._parts, decode(Heartbeat, payload), exchange.peer_key
        self._pulses.admit(caller, parts.clock.monotonic())
        reply = await parts.offload(lambda: self._beat(request, caller))
        await exchange.reply(encode(reply))

    def _beat(self, request: Heartbeat, caller: PublicKey) -> HeartbeatReply:
        parts = self._parts
        keep_notes(parts, caller, request.notes)
        totals = self._pulses.totals(caller, parts.clock.monotonic(), parts.contracts.totals_of)
        losses = parts.contracts.audits.unnoted(caller, request.after, MAX_BATCH + 1)
        return HeartbeatReply(
            now_ms=parts.clock.now_ms(),
            stored_count=totals.stored_count,
            stored_bytes=totals.stored_bytes,
            losses=tuple(losses[:MAX_BATCH]),
            more=len(losses) > MAX_BATCH,
            leaving_by_ms=parts.leaving.by_ms,
        )


def prove_or_none(ask: Ask, keeper: StoreKeeper) -> Item | None:
    """The answer to one ask, or None when the shard has to be looked at again. Blocks."""
    try:
        return prove_ask(ask, keeper)
    except (_DamagedError, EnvironmentFault):  # the latter may be one bad sector, which is no other shard's affair
        return None


def _charges(
    asks: Sequence[Ask], held: Mapping[ContractId, HeldContract], grants: Sequence[SignedGrant]
) -> tuple[Charge, ...]:
    """What the page costs every budget of its grants; nothing for shards that are not here."""
    return tuple(
        Charge(budget.serial, ask.moved_bytes, budget.budget_bytes, budget.expires_ms)
        for ask, grant in zip(asks, grants, strict=False)
        if ask.contract_id in held and held[ask.contract_id].state is ContractState.ACTIVE
        for budget in spendings(grant)
    )


def _is_about(receipt: BatchReceipt, challenge: Challenge) -> bool:
    names = ("renter_key", "auditor_key", "nonce", "holding", "sent_at_ms")
    return all(getattr(receipt, name) == getattr(challenge, name) for name in names)
