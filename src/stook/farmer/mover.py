"""Leaving: MOVE takes a renter's order to bring its shard to another farmer, and a chore carries orders out.

The farmer is here a sender: it consigns the same bytes under the grant that the renter made for it, and keeps the new
farmer's receipt. Nothing of its own ends by that: the renter audits the new place, and then cancels here
(`docs/protocol/move.md`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from stook.codec import decode, encode
from stook.contracts.lifecycle import OVER, ContractState
from stook.contracts.messages import MAX_DETAIL_CHARS, Consign, ConsignReady, Method
from stook.contracts.move import Move, MoveAnswer, MoveOrder, MoveReply, check_order
from stook.contracts.receipt import SignedStorageReceipt, verify_storage_receipt
from stook.errors import (
    EnvironmentFault,
    MisbehaviourError,
    NotFoundError,
    PeerError,
    ReasonCode,
    RefusedError,
)
from stook.farmer.losses import confess, confess_unreadable
from stook.farmer.parts import Parts
from stook.farmer.readback import DamagedError, blocks_of, read_block
from stook.ids import PublicKey
from stook.merkle import unit_count
from stook.storage.exit_ports import KeptMove, MoveState
from stook.storage.ports import HeldContract
from stook.wire.endpoint import Endpoint, Exchange, Peer

BATCH = 64
FIRST_PAUSE_MS = 60_000
LONGEST_PAUSE_MS = 3_600_000
_AGAIN = frozenset({ReasonCode.CANCELLED, ReasonCode.INTERNAL, ReasonCode.DISK_LOW})
"""Refusals that are not for ever, beside those that say so."""


class Mover:
    """Serves MOVE, and carries the orders out."""

    def __init__(self, parts: Parts, endpoint: Endpoint, on_orders: Callable[[], None]) -> None:
        self._parts = parts
        self._endpoint = endpoint
        self._on_orders = on_orders

    # --- MOVE --------------------------------------------------------------------------------------------------------

    async def move(self, exchange: Exchange, payload: bytes) -> None:
        """Take orders, durably; asked again, say how they stand."""
        parts, orders = self._parts, decode(Move, payload).orders
        answers = await parts.offload(lambda: self._take(orders, exchange.peer_key))
        for answer in answers:
            if answer.code:
                parts.tally.refusals[ReasonCode(answer.code)] += 1
        self._on_orders()
        await exchange.reply(encode(MoveReply(answers)))

    def _take(self, orders: Sequence[MoveOrder], caller: PublicKey) -> tuple[MoveAnswer, ...]:
        exits = self._parts.contracts.exits
        fresh: dict[bytes, KeptMove] = {}
        answers = []
        for order in orders:
            try:
                known = self._judge(order, caller)
            except RefusedError as refusal:
                detail = refusal.detail[:MAX_DETAIL_CHARS]
                answers.append(MoveAnswer(order.contract_id, refusal.code, detail, None))
                continue
            if known is None:
                known = fresh[order.contract_id] = KeptMove(order)
            answers.append(MoveAnswer(order.contract_id, known.code, known.detail, known.receipt))
        if fresh:
            exits.put_moves(list(fresh.values()))
        return tuple(answers)

    def _judge(self, order: MoveOrder, caller: PublicKey) -> KeptMove | None:
        """The order on the book if it is this one; None for one to be taken. Raises `RefusedError`."""
        parts = self._parts
        held = parts.contracts.get(order.contract_id)
        if held is not None and held.state in OVER:
            held = None
        if held is not None and held.contract.terms.renter_key == caller:
            known = parts.contracts.exits.move(order.contract_id)
            if known is not None and known.order.contract == order.contract:
                return known
        check_order(
            order,
            None if held is None else held.contract,
            None if held is None else held.state,
            network=parts.network,
            farmer_key=parts.key.public_key,
            caller_key=caller,
            leaving=bool(parts.leaving.by_ms),
            now_ms=parts.clock.now_ms(),
        )
        return None

    # --- carrying them out -------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Find out whether we leave: the command line says so in the contract store, whether we run or not."""
        parts = self._parts
        by_ms = await parts.offload(parts.contracts.exits.leaving_by_ms)
        if by_ms != parts.leaving.by_ms:
            parts.leaving.by_ms = by_ms
            parts.log.info("leaving" if by_ms else "staying", by_ms=by_ms)

    async def step(self) -> int:
        """Carry out the orders whose time has come, some at once; how many shards arrived."""
        parts = self._parts
        due = await parts.offload(lambda: parts.contracts.exits.due_moves(parts.clock.now_ms(), BATCH))
        turns = asyncio.Semaphore(parts.settings.transfers.max_moves)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._in_turn(turns, move)) for move in due]
        return sum(task.result() for task in tasks)

    async def _in_turn(self, turns: asyncio.Semaphore, move: KeptMove) -> bool:
        parts = self._parts
        async with turns:
            held = await parts.offload(lambda: parts.contracts.get(move.order.contract_id))
            if held is None or held.state in OVER:
                return False  # its orders are forgotten with it
            after = await self._carry(move, held)
            await parts.offload(lambda: self._note(move, after))
        facts = {"contract": move.order.contract_id.hex(), "to": move.order.contact.node_id.hex()}
        parts.log.info("move", **facts, state=after.state.name, why=after.detail)
        return after.state is MoveState.DONE

    def _note(self, before: KeptMove, after: KeptMove) -> None:
        """Write down what came of an order, unless it was cancelled or another one took its place meanwhile."""
        exits = self._parts.contracts.exits
        now = exits.move(before.order.contract_id)
        if now is not None and now.order == before.order:
            exits.put_moves([after])

    async def _carry(self, move: KeptMove, held: HeldContract) -> KeptMove:
        """One attempt, and how the order stands after it."""
        parts, terms = self._parts, move.order.contract.terms
        try:
            if held.state is not ContractState.ACTIVE:
                raise RefusedError(ReasonCode.SHARD_LOST, "this shard was lost here")
            if parts.clock.now_ms() >= terms.consign_by_ms:
                raise RefusedError(ReasonCode.CONSIGN_TOO_LATE, move.detail or "consign-by has passed")
            receipt = await self._push_or_confess(move.order, held)
        except RefusedError as refusal:
            if refusal.retryable or refusal.code in _AGAIN:
                return self._later(move, str(refusal), refusal.retry_after_ms)
            return _failed(move, refusal.code, refusal.detail)
        except MisbehaviourError as error:
            return _failed(move, error.code, str(error))
        except PeerError as error:
            if error.retryable:
                return self._later(move, str(error))
            return _failed(move, ReasonCode.MALFORMED, str(error))
        except EnvironmentFault as fault:
            parts.log.error("this machine failed", contract=move.order.contract_id.hex(), why=str(fault))
            return self._later(move, "the farmer's own machine failed")
        parts.tally.shards_out += 1
        return replace(move, state=MoveState.DONE, receipt=receipt, code=0, detail="", tries=move.tries + 1)

    def _later(self, move: KeptMove, why: str, after_ms: int = 0) -> KeptMove:
        pause = max(after_ms, min(FIRST_PAUSE_MS << min(move.tries, 16), LONGEST_PAUSE_MS))
        next_ms = self._parts.clock.now_ms() + pause
        return replace(move, next_ms=next_ms, tries=move.tries + 1, detail=why[:MAX_DETAIL_CHARS])

    async def _push_or_confess(self, order: MoveOrder, held: HeldContract) -> SignedStorageReceipt:
        try:
            return await self._push(order)
        except (DamagedError, NotFoundError) as damage:
            raise await confess(self._parts, held, str(damage)) from None
        except EnvironmentFault as fault:
            raise await confess_unreadable(self._parts, held, fault) from None

    async def _push(self, order: MoveOrder) -> SignedStorageReceipt:
        """Consign the shard at the new farmer; its receipt, verified."""
        parts, terms = self._parts, order.contract.terms
        root, size = terms.shard_root, terms.shard_size_bytes
        request = encode(Consign(order.contract, order.grant))
        deadline = parts.settings.transfers.transfer_deadline_seconds
        async with (
            parts.lanes.lane(parts.key.node_id) as lane,
            self._endpoint.exchange(
                Peer.of(order.contact), Method.CONSIGN, request, deadline_seconds=deadline
            ) as exchange,
        ):
            ready = decode(ConsignReady, await exchange.next_reply())
            receipt = ready.receipt
            if receipt is None:
                if ready.first_unit > unit_count(size):
                    raise MisbehaviourError(ReasonCode.MALFORMED, f"wants to begin at unit {ready.first_unit}")
                leaves = await parts.offload(lambda: parts.shards.read_leaves(root))
                await exchange.send(leaves)
                for block in blocks_of(ready.first_unit, size, parts.settings.transfers.block_bytes):
                    piece = lane[0][: block.size_bytes]
                    await parts.offload(partial(read_block, parts.shards, root, block, leaves, piece))
                    await exchange.send(piece)
                    parts.tally.bytes_out += block.size_bytes
                await exchange.finish()
                receipt = decode(SignedStorageReceipt, await exchange.next_reply())
        verify_storage_receipt(receipt, order.contract)
        return receipt


def _failed(move: KeptMove, code: ReasonCode, why: str) -> KeptMove:
    detail = why[:MAX_DETAIL_CHARS]
    return replace(move, state=MoveState.FAILED, code=int(code), detail=detail, tries=move.tries + 1)
