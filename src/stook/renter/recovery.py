"""An agent's database rebuilt from the farmers themselves: every contract carries a memo only we can read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stook.clock import Offload
from stook.codec import decode, encode
from stook.contracts.messages import MAX_BATCH, ContractPage, ListContracts, ListedContract, Method
from stook.contracts.negotiation import verify_contract
from stook.errors import CorruptionError, PeerError
from stook.identity.keys import NodeKey, node_id_of
from stook.ids import NetworkId, NodeId, SegmentId, ShardRoot
from stook.renter.book import FarmerBook
from stook.renter.tasks import Tasks
from stook.shards.geometry import Policy
from stook.shards.memo import Memo, open_memo
from stook.storage.renter_ports import AgentStore, Placement, PlacementState, SegmentFacts
from stook.wire.endpoint import Endpoint

_DEADLINE_SECONDS = 30.0
_AT_ONCE = 16
_UNKNOWN_ROOT = ShardRoot(b"")


@dataclass(frozen=True, slots=True)
class Found:
    """One contract of ours that a farmer listed, with its memo opened."""

    listed: ListedContract
    memo: Memo
    farmer: NodeId


def guess_policy(k: int, total: int, configured: Policy | None, spares: int) -> Policy:
    """The policy a segment was probably stored under: the memo keeps k and the rows, not r, o and n."""
    if configured is not None and configured.k == k and configured.n <= total <= configured.n + spares:
        return configured
    return Policy.of(k, max(k, total - spares))


def group_found(
    found: Sequence[Found], configured: Policy | None, spares: int
) -> tuple[list[SegmentFacts], list[Placement]]:
    """Segments and placements out of what was listed. Pure. Roots nobody listed are left empty."""
    by_segment: dict[SegmentId, list[Found]] = {}
    for item in found:
        by_segment.setdefault(item.memo.segment_id, []).append(item)
    segments, placements = [], []
    for segment_id, items in by_segment.items():
        memo = items[0].memo
        agreeing = [i for i in items if (i.memo.k, i.memo.shard_bytes) == (memo.k, memo.shard_bytes)]
        total = max(item.memo.total for item in agreeing)
        roots: Mapping[int, ShardRoot] = {
            item.memo.index: item.listed.contract.terms.shard_root for item in agreeing if item.memo.copy == 0
        }
        segments.append(
            SegmentFacts(
                segment_id=segment_id,
                policy=guess_policy(memo.k, total, configured, spares),
                total=total,
                shard_bytes=memo.shard_bytes,
                roots=tuple(roots.get(index, _UNKNOWN_ROOT) for index in range(total)),
                created_ms=min(item.listed.contract.terms.begin_ms for item in agreeing),
            )
        )
        placements += [
            Placement(
                segment_id=segment_id,
                index=item.memo.index,
                copy=item.memo.copy,
                root=item.listed.contract.terms.shard_root,
                farmer=item.farmer,
                contract=item.listed.contract,
                state=PlacementState.STORED if item.listed.stored else PlacementState.CLAIMED,
            )
            for item in agreeing
        ]
    return segments, placements


async def recover_placements(
    *,
    endpoint: Endpoint,
    key: NodeKey,
    network: NetworkId,
    mask_root: bytes,
    book: FarmerBook,
    store: AgentStore,
    offload: Offload,
    policy: Policy | None,
    spares: int,
) -> int:
    """Ask every known farmer for our contracts and take them in, page by page; the number of placements added.

    Farmers that do not answer are passed over: run it again when they are back.
    """

    async def ask(farmer: NodeId) -> int:
        added, after = 0, b""
        while True:
            request = encode(ListContracts(after=after, limit=MAX_BATCH))
            try:
                reply = await endpoint.call(
                    book.peer(farmer), Method.LIST_CONTRACTS, request, deadline_seconds=_DEADLINE_SECONDS
                )
                page = decode(ContractPage, reply)
            except PeerError:
                return added
            judge = _judge_page(page, farmer, key, network, mask_root)

            def take(judge: Callable[[], list[Found]] = judge) -> int:
                segments, placements = group_found(judge(), policy, spares)
                return store.adopt(segments, placements) if segments else 0

            async with turn:
                added += await offload(take)
            last = page.contracts[-1].contract.contract_id if page.contracts else b""
            if not page.more or last <= after:
                return added
            after = last

    turn = asyncio.Lock()
    """One page in memory and on its way into the store at a time, however many farmers answer."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask_in_turn(farmer: NodeId) -> int:
        async with gate:
            return await ask(farmer)

    async with Tasks() as group:
        tasks = [group.create_task(ask_in_turn(farmer)) for farmer in book.farmers()]
    return sum(task.result() for task in tasks)


def _judge_page(
    page: ContractPage, farmer: NodeId, key: NodeKey, network: NetworkId, mask_root: bytes
) -> Callable[[], list[Found]]:
    def judge() -> list[Found]:
        kept = []
        for listed in page.contracts:
            terms = listed.contract.terms
            if terms.renter_key != key.public_key or node_id_of(terms.farmer_key) != farmer:
                continue
            try:
                verify_contract(listed.contract, network)
                kept.append(Found(listed, open_memo(mask_root, terms.memo), farmer))
            except (PeerError, CorruptionError):
                continue
        return kept

    return judge
