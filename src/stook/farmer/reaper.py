"""What a farmer gives up by itself: reservations past consign-by, contracts past their end, half-done erasures.

`choose` decides and is pure; `wipe` and `reap` act. CANCEL uses the same `wipe`, so there is one way to erase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from stook.contracts.lifecycle import OVER, RESERVING, ContractState, Event, apply
from stook.contracts.receipt import SignedEraseReceipt, sign_erase_receipt
from stook.errors import RefusedError
from stook.farmer.parts import Parts
from stook.ids import ShardRoot
from stook.payments.enforcement import Step
from stook.storage.ports import HeldContract

BATCH = 256
WIPE_DEADLINE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Reap:
    """One contract to give up. `event` is None when it is over already and only the erasure was not finished."""

    held: HeldContract
    event: Event | None


def choose(due: Iterable[HeldContract], now_ms: int, in_transfer: Callable[[ShardRoot], bool]) -> list[Reap]:
    """Which of the contracts are due now, and what happens to each.

    A transfer that began in time may run past consign-by; it ends by its own deadline.
    """
    chosen: list[Reap] = []
    for held in due:
        terms = held.contract.terms
        if held.state in OVER:
            chosen.append(Reap(held, None))
        elif in_transfer(terms.shard_root):
            continue
        elif held.state in RESERVING:
            if terms.consign_by_ms <= now_ms:
                chosen.append(Reap(held, Event.LAPSE))
        elif terms.end_ms <= now_ms:
            chosen.append(Reap(held, Event.END))
    return chosen


def wipe(parts: Parts, held: HeldContract, event: Event | None, now_ms: int) -> SignedEraseReceipt:
    """Give up a contract and erase what it covered; the signed word that it is gone. Blocks; hold the shard's gate.

    The order makes it safe to be killed anywhere: first the contract is over, durably, then the bytes go, then the
    contract. A start after a kill finds the contract over and finishes the erasure.
    """
    if event is not None:
        held = HeldContract(held.contract, apply(held.state, event))
        parts.contracts.put(held)
    terms = held.contract.terms
    if parts.contracts.by_root(terms.shard_root) is None:  # else the bytes are another contract's: a loss made good
        parts.shards.erase(terms.shard_root)
    parts.contracts.audits.close([held.contract_id])
    parts.contracts.exits.close([held.contract_id])
    parts.contracts.remove([held.contract_id])
    return sign_erase_receipt(terms, parts.key, terms.shard_size_bytes, now_ms)


async def reap(parts: Parts) -> int:
    """Give up everything that is due and forget the spending of grants that expired; how many contracts went."""
    gone = 0
    while True:
        now_ms = parts.clock.now_ms()
        due = await parts.offload(partial(parts.contracts.due, now_ms, BATCH))
        chosen = choose(due, now_ms, parts.gate.busy)
        done = 0
        for one in chosen:
            done += await _reap_one(parts, one, now_ms)
        gone += done
        if done == 0 or len(due) < BATCH:
            break
    parts.tally.reaped += gone
    await parts.offload(lambda: _forget(parts, parts.clock.now_ms()))
    return gone


async def evict(parts: Parts) -> int:
    """Give up what renters store that are long past their grace, where the operator wants that; how many contracts."""
    gone = 0
    for renter, standing in list(parts.till.standings.items()) if parts.till is not None else ():
        if standing.step is not Step.DROP:
            continue
        after = b""
        while page := await parts.offload(partial(parts.contracts.owned_by, renter, after, BATCH)):
            for held in page:
                if held.state is ContractState.ACTIVE:
                    gone += await _reap_one(parts, Reap(held, Event.CANCEL), parts.clock.now_ms())
            after = page[-1].contract_id
    return gone


def _forget(parts: Parts, now_ms: int) -> None:
    limits = parts.settings.audits
    parts.contracts.forget_spending(now_ms)
    parts.contracts.audits.prune(now_ms - limits.keep_ms, limits.keep_rounds)


async def _reap_one(parts: Parts, one: Reap, now_ms: int) -> bool:
    terms = one.held.contract.terms
    try:
        async with parts.gate.hold(terms.shard_root, deadline_seconds=WIPE_DEADLINE_SECONDS):
            now_held = await parts.offload(lambda: parts.contracts.get(one.held.contract_id))
            if now_held is None or now_held != one.held:
                return False  # renewed, cancelled or filled while we waited at the gate
            receipt = await parts.offload(lambda: wipe(parts, now_held, one.event, now_ms))
    except RefusedError:
        return False  # the gate's deadline; the next run tries again
    parts.lost.discard(one.held.contract_id)
    parts.erased.remember(one.held.contract_id, terms.renter_key, receipt)
    why = one.event.value if one.event is not None else "finish"
    parts.log.info("contract reaped", contract=one.held.contract_id.hex(), why=why, bytes=terms.shard_size_bytes)
    return True
