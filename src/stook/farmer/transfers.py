"""The two methods that move shard bytes: CONSIGN brings a shard, RETRIEVE fetches one.

Bytes go from the socket into one of two reused blocks, and from there, hashed, to the disk in one piece of work off the
loop; while one block is written the other fills. Nothing is copied in between, and nothing is bounded by the shard.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

from stook.codec import decode, encode
from stook.contracts.contract import MAX_CONTRACT_BYTES, Contract
from stook.contracts.grant import Operation, Spending, check_grant, spendings
from stook.contracts.lifecycle import OVER, RESERVING, ContractState, Event, apply
from stook.contracts.messages import Consign, ConsignReady, Retrieve, RetrieveReady
from stook.contracts.negotiation import verify_contract
from stook.contracts.receipt import SignedStorageReceipt, sign_storage_receipt
from stook.errors import (
    BugError,
    CorruptionError,
    EnvironmentFault,
    MalformedError,
    NotFoundError,
    ReasonCode,
    RefusedError,
    StookError,
)
from stook.farmer.intake import LEAF_BYTES, Intake
from stook.farmer.lanes import Lane
from stook.farmer.losses import confess, confess_unreadable, declare_lost
from stook.farmer.parts import Parts
from stook.farmer.readback import DamagedError, blocks_of, read_block
from stook.farmer.refusals import refusal_of
from stook.ids import PublicKey, ShardRoot
from stook.merkle import UNIT_BYTES, unit_count
from stook.storage.ports import HeldContract, StoredShard
from stook.wire.endpoint import Exchange


class TransferDesk:
    """Serves CONSIGN and RETRIEVE."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    # --- CONSIGN -----------------------------------------------------------------------------------------------------

    async def consign(self, exchange: Exchange, payload: bytes) -> None:
        """Receive the shard of a contract; the receipt is signed when shard and contract are durable.

        Asked again after the receipt it answers with the receipt; after a broken line it goes on at the first unit
        that is not held. The newest request for a shard wins over one that still runs, but only a valid one.
        """
        parts, request = self._parts, decode(Consign, payload)
        root = request.contract.terms.shard_root
        if parts.gate.busy(root):  # only a valid request may push another one aside
            await parts.offload(lambda: self._admit(request, exchange.peer_key))
        gate = parts.gate.hold(
            root, deadline_seconds=parts.settings.transfers.transfer_deadline_seconds, supersede=True
        )
        async with gate:
            ready = await self._begin_or_confess(request, exchange.peer_key)
            if ready.receipt is not None:
                await exchange.reply(encode(ready))
                return
            async with parts.lanes.lane(exchange.peer_id) as lane:
                receipt = await self._receive(exchange, request.contract, ready, lane)
        await exchange.reply(encode(receipt))

    def _admit(self, request: Consign, caller: PublicKey) -> HeldContract:
        """The contract as held, after everything that can be refused before a byte flows.

        Raises `RefusedError` or `MisbehaviourError`.
        """
        parts, contract = self._parts, request.contract
        verify_contract(contract, parts.network)
        if contract.terms.farmer_key != parts.key.public_key:
            raise RefusedError(ReasonCode.WRONG_RECIPIENT, "the contract is another farmer's")
        now_ms = parts.clock.now_ms()
        check_grant(
            request.grant,
            network=parts.network,
            farmer=parts.key.node_id,
            contract=contract,
            caller_key=caller,
            operation=Operation.CONSIGN,
            begin=0,
            end=contract.terms.shard_size_bytes,
            now_ms=now_ms,
        )
        if parts.till is not None:
            parts.till.admit(contract.terms.renter_key)
        held = parts.contracts.get(contract.contract_id)
        if held is None or held.state in OVER:
            raise RefusedError(ReasonCode.UNKNOWN_CONTRACT, "nothing is reserved under this contract")
        if held.state is ContractState.LOST:
            raise RefusedError(ReasonCode.SHARD_LOST, "this shard was stored and lost; make a new contract")
        if held.state in RESERVING:
            if held.contract.terms != contract.terms:
                raise RefusedError(ReasonCode.BAD_TERMS, "these are not the terms that were reserved")
            if now_ms >= contract.terms.consign_by_ms:
                raise RefusedError(ReasonCode.CONSIGN_TOO_LATE, "consign-by has passed")
        return held

    async def _begin_or_confess(self, request: Consign, caller: PublicKey) -> ConsignReady:
        """`_begin`; a stored shard that turns out gone is declared lost. Hold the shard's gate."""
        parts = self._parts
        try:
            return await parts.offload(lambda: self._begin(request, caller))
        except (NotFoundError, CorruptionError) as damage:
            held = await parts.offload(lambda: parts.contracts.get(request.contract.contract_id))
            if held is not None:
                await declare_lost(parts, held, str(damage))
            raise RefusedError(ReasonCode.SHARD_LOST, "the shard was lost here") from None

    def _begin(self, request: Consign, caller: PublicKey) -> ConsignReady:
        """Judge the request; then where to go on, or the receipt when the shard is here, even if not noted yet."""
        held = self._admit(request, caller)
        parts, contract = self._parts, request.contract
        terms = contract.terms
        stored = self._own_file(held)
        if stored is None:
            if held.state is ContractState.ACTIVE:
                raise NotFoundError("the shard was stored and is gone")
            return ConsignReady(parts.shards.resumable_units(terms.shard_root, terms.shard_size_bytes), None)
        if held.state in RESERVING:
            parts.contracts.put(HeldContract(contract, _stored()), durable=False)
        receipt = sign_storage_receipt(held.contract.terms, parts.key, parts.clock.now_ms())
        return ConsignReady(unit_count(terms.shard_size_bytes), receipt)

    def _own_file(self, held: HeldContract) -> StoredShard | None:
        """The published shard of this contract. What a lost contract left under the same root makes room for it."""
        shards, root = self._parts.shards, held.contract.terms.shard_root
        try:
            stored = shards.find(root)
        except CorruptionError:
            if held.state not in RESERVING:
                raise
            stored, foreign = None, True
        else:
            foreign = stored is not None and held.state in RESERVING and not _carries(stored, held.contract)
        if foreign:
            shards.erase(root)
            return None
        return stored

    async def _receive(
        self, exchange: Exchange, contract: Contract, ready: ConsignReady, lane: Lane
    ) -> SignedStorageReceipt:
        parts, terms = self._parts, contract.terms
        intake = Intake(parts.shards, terms.shard_root, terms.shard_size_bytes, ready.first_unit)
        await exchange.reply(encode(ready))
        await exchange.receive_into(intake.leaves)
        try:
            receipt = await self._fill(exchange, intake, ready.first_unit, contract, lane)
        except BaseException:
            await parts.offload(intake.close)
            raise
        parts.tally.shards_in += 1
        return receipt

    async def _fill(
        self, exchange: Exchange, intake: Intake, first_unit: int, contract: Contract, lane: Lane
    ) -> SignedStorageReceipt:
        """Receive and write the missing units, one block filling while another is hashed and written; then seal."""
        parts, size = self._parts, contract.terms.shard_size_bytes
        blocks = blocks_of(first_unit, size, parts.settings.transfers.block_bytes)
        pieces = [lane[i % 2][: block.size_bytes] for i, block in enumerate(blocks)]
        arrivals = [exchange.post(piece) for piece in pieces[:2]]
        try:
            for i, piece in enumerate(pieces):
                try:
                    await exchange.filled(arrivals[i])
                except BaseException:
                    await self._salvage(exchange, intake, size, sum(map(len, pieces[:i])), piece)
                    raise
                parts.tally.bytes_in += len(piece)
                if i + 1 == len(pieces):
                    break
                await parts.offload(partial(intake.write, piece))
                if i + 2 < len(pieces):
                    arrivals.append(exchange.post(pieces[i + 2]))
            last = pieces[-1] if pieces else None
            return await parts.offload(partial(self._seal, contract, intake, last))
        except Exception as error:
            # Said before the buffers are withdrawn, which resets the exchange.
            if (refusal := refusal_of(error)) is not None and exchange.failure is None:
                await exchange.refuse(refusal.code, refusal.detail, refusal.retry_after_ms)
            raise
        finally:
            for arrival in arrivals:
                if not arrival.cancel() and not arrival.cancelled():
                    arrival.exception()  # a second failure of the same line tells nothing new

    async def _salvage(
        self, exchange: Exchange, intake: Intake, size: int, taken_bytes: int, piece: memoryview
    ) -> None:
        """Keep the whole units of a block that did not fill, so that a resume begins at the last verified leaf.

        Behind a slow line a broken transfer would otherwise lose up to a block per shard, each time.
        """
        landed = exchange.progress - unit_count(size) * LEAF_BYTES - taken_bytes
        whole = min(landed, len(piece)) // UNIT_BYTES * UNIT_BYTES
        if whole > 0:
            with suppress(StookError):  # why the transfer ended is told already
                await self._parts.offload(partial(intake.write, piece[:whole]))

    def _seal(self, contract: Contract, intake: Intake, last: memoryview | None) -> SignedStorageReceipt:
        """Write the last block, publish, write down, and only then sign.

        Killed in between, the next start or CONSIGN does the rest. `last` is None when every unit was held before.
        """
        parts = self._parts
        if last is not None:
            intake.write(last)
        intake.publish(encode(contract))
        parts.contracts.put(HeldContract(contract, _stored()), durable=False)  # the shard file proves it
        return sign_storage_receipt(contract.terms, parts.key, parts.clock.now_ms())

    # --- RETRIEVE ----------------------------------------------------------------------------------------------------

    async def retrieve(self, exchange: Exchange, payload: bytes) -> None:
        """Send units under a grant: its budget is charged durably first, and what was not sent is given back."""
        parts, request = self._parts, decode(Retrieve, payload)
        held, begin, end = await parts.offload(lambda: self._examine(request, exchange.peer_key))
        seconds = parts.settings.transfers.transfer_deadline_seconds
        try:
            async with asyncio.timeout(seconds), parts.lanes.lane(exchange.peer_id) as lane:
                await self._send(exchange, request, held, begin, end, lane)
        except TimeoutError:
            raise RefusedError(ReasonCode.TOO_SLOW, f"not done in {seconds:g} s") from None
        except (DamagedError, NotFoundError) as damage:
            raise await confess(parts, held, str(damage)) from None
        except EnvironmentFault as fault:
            raise await confess_unreadable(parts, held, fault) from None

    def _examine(self, request: Retrieve, caller: PublicKey) -> tuple[HeldContract, int, int]:
        parts, grant = self._parts, request.grant.grant
        held = parts.contracts.get(grant.contract_id)
        contract = held.contract if held is not None and held.state not in OVER else None
        size = contract.terms.shard_size_bytes if contract is not None else 0
        begin, end = request.first_unit * UNIT_BYTES, min(request.end_unit * UNIT_BYTES, size)
        now_ms = parts.clock.now_ms()
        check_grant(
            request.grant,
            network=parts.network,
            farmer=parts.key.node_id,
            contract=contract,
            caller_key=caller,
            operation=Operation.RETRIEVE,
            begin=begin,
            end=max(end, begin),
            now_ms=now_ms,
        )
        if held is None:
            raise BugError("check_grant let a grant without a contract through")
        if begin >= end:
            raise RefusedError(ReasonCode.GRANT_OUT_OF_RANGE, "no unit is asked for")
        if now_ms >= held.contract.terms.end_ms:
            raise RefusedError(ReasonCode.CONTRACT_ENDED, "the contract is over")
        if held.state is ContractState.LOST:
            raise RefusedError(ReasonCode.SHARD_LOST, "this shard was lost here")
        if held.state is not ContractState.ACTIVE:
            raise RefusedError(ReasonCode.NOT_STORED_YET, "the shard has not come yet")
        return held, begin, end

    async def _send(
        self, exchange: Exchange, request: Retrieve, held: HeldContract, begin: int, end: int, lane: Lane
    ) -> None:
        parts, root = self._parts, held.contract.terms.shard_root
        check = parts.settings.transfers.verify_reads
        charged = spendings(request.grant)
        if parts.till is not None:
            parts.till.reserve(held.contract.terms, end - begin)
        sent, leaves = 0, b""
        try:
            leaves = await parts.offload(lambda: self._open(root, charged, end - begin))
            await exchange.reply(encode(RetrieveReady(held.contract.terms.shard_size_bytes)))
            await exchange.send(leaves)
            for block in blocks_of(begin // UNIT_BYTES, end, parts.settings.transfers.block_bytes):
                piece = lane[0][: block.size_bytes]
                await parts.offload(partial(read_block, parts.shards, root, block, leaves, piece, check=check))
                await exchange.send(piece)
                sent += block.size_bytes
                parts.tally.bytes_out += block.size_bytes
        finally:
            if parts.till is not None:
                parts.till.release(held.contract.terms, end - begin - sent)
            if leaves and sent < end - begin:
                await parts.offload(lambda: self._refund(charged, end - begin - sent))
        parts.tally.shards_out += 1

    def _open(self, root: ShardRoot, budgets: tuple[Spending, ...], size_bytes: int) -> bytes:
        leaves = self._parts.shards.read_leaves(root)
        self._charge(budgets, size_bytes)
        return leaves

    def _charge(self, budgets: tuple[Spending, ...], size_bytes: int) -> None:
        """Charge every budget of the grant's chain, or none."""
        contracts = self._parts.contracts
        for i, budget in enumerate(budgets):
            if not contracts.spend(budget.serial, size_bytes, budget.budget_bytes, budget.expires_ms):
                self._refund(budgets[:i], size_bytes)
                raise RefusedError(
                    ReasonCode.GRANT_EXHAUSTED, f"{size_bytes} bytes are more than is left of {budget.budget_bytes}"
                )

    def _refund(self, budgets: tuple[Spending, ...], size_bytes: int) -> None:
        for budget in budgets:
            self._parts.contracts.refund(budget.serial, size_bytes)


def _carries(stored: StoredShard, contract: Contract) -> bool:
    """Whether a shard file was published under this contract."""
    try:
        return decode(Contract, stored.contract, max_bytes=MAX_CONTRACT_BYTES).contract_id == contract.contract_id
    except MalformedError:
        return False


def _stored() -> ContractState:
    """The farmer sees the last three steps at once: it learns of the countersignature with the shard."""
    state = ContractState.OFFERED
    for event in (Event.COUNTERSIGN, Event.CONSIGN, Event.STORE):
        state = apply(state, event)
    return state
