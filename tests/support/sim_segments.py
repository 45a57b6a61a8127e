"""One segment out and back through a testnet's agent, without a client: for tests that judge single transfers."""

from __future__ import annotations

from dataclasses import dataclass

from stook.renter.fetch import Fetcher, Wish
from stook.renter.pace import PushGoal
from stook.renter.push import Pushed, Pusher
from stook.shards.arena import Scratch, ShardArena
from stook.shards.geometry import SegmentShape, smallest_shape
from stook.shards.pipeline import seal, unseal
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import SegmentFacts


@dataclass(frozen=True)
class Kept:
    """What a client would keep of a segment."""

    facts: SegmentFacts
    shape: SegmentShape
    key: bytes
    mask_key: bytes
    size_bytes: int
    pushed: Pushed


async def put_segment(net: Testnet, data: bytes, *, deadline_seconds: float = 600.0) -> Kept:
    renter = net.renter
    placement = await renter.agent.policy()
    policy, total = placement.policy, placement.total
    shape = smallest_shape(len(data), policy.k, total)
    (allotment,) = await renter.agent.allot(1)
    key = net.dice(32)
    sealed = seal(
        memoryview(data),
        key=key,
        mask_key=allotment.mask_key,
        shape=shape,
        arena=ShardArena.of(shape),
        codec=net.world.codec,
    )
    facts = SegmentFacts(
        segment_id=allotment.segment_id,
        policy=policy,
        total=total,
        shard_bytes=shape.shard_bytes,
        roots=sealed.roots,
        created_ms=renter.clock.now_ms(),
    )
    pusher = Pusher(
        agent=renter.agent,
        endpoint=renter.endpoint,
        node_key=renter.key.public_key,
        clock=renter.clock,
        shard_deadline_seconds=deadline_seconds,
    )
    goal = PushGoal(enough=policy.o, full=policy.n, spares=tuple(range(policy.n, total)))
    pushed = await pusher.push(facts, {shard.index: shard for shard in sealed.shards}, goal)
    return Kept(facts, shape, key, allotment.mask_key, len(data), pushed)


async def get_segment(net: Testnet, kept: Kept) -> bytes:
    renter, shape = net.renter, kept.shape
    located = (await renter.agent.locate([kept.facts.segment_id], renter.key.public_key))[kept.facts.segment_id]
    fetcher = Fetcher(agent=renter.agent, endpoint=renter.endpoint, clock=renter.clock, offload=net.world.offload)
    wish = Wish(
        k=shape.k,
        shard_bytes=shape.shard_bytes,
        first_unit=0,
        end_unit=shape.stripes,
        roots=dict(enumerate(kept.facts.roots)),
    )
    rows = ShardArena.of(shape).lay(shape).rows
    shards = await fetcher.fetch(located, wish, rows)
    plain = bytearray(kept.size_bytes)
    unseal(
        shards,
        key=kept.key,
        mask_key=kept.mask_key,
        shape=shape,
        into=memoryview(plain),
        codec=net.world.codec,
        scratch=Scratch(),
    )
    return bytes(plain)
