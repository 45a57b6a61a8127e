"""Attacks on what is stored: withholding it, and selling it."""

from __future__ import annotations

import asyncio
from functools import partial

from stook.audits.confidence import beach_chance
from stook.errors import DeadlineError, PeerError, ReasonCode, RefusedError, StookError, UnreachableError
from stook.merkle import UNIT_BYTES, unit_count
from stook.renter.fetch import Fetcher, Wish
from stook.renter.files import BytesSource
from stook.renter.ports import Item
from stook.shards.cipher import segment_cipher
from stook.shards.geometry import Policy
from stook.shards.mask import segment_mask_key, shard_mask
from stook.sim.adversaries import HoldsHostage
from stook.sim.attacks.outcome import Attack, Outcome
from stook.sim.loop import run
from stook.sim.nodes import SimFarmer
from stook.sim.testnet import Testnet

BUCKET = "things"
POLICY = Policy.parse("4/8/10/12")
ASKED_FOR = 5
"""Shards that a farmer is asked for before it is believed that it lost them all."""
WINDOW = 16
"""Bytes of plain data in a row that would be recognised."""


async def put(net: Testnet, objects: dict[str, bytes]) -> None:
    """Store objects, each in segments of its own, and wait until every segment has its n shards."""
    client = net.renter.client
    await client.make_bucket(BUCKET)
    for name, data in objects.items():
        # Together they would share a bundle, and that is one segment.
        await client.put_many(BUCKET, [Item(name, partial(BytesSource, data, 1), len(data), modified_ms=1)])
    await client.settle()


async def unread(net: Testnet, objects: dict[str, bytes]) -> int:
    """How many objects do not come back as they were."""
    lost = 0
    for name, data in objects.items():
        try:
            lost += await net.renter.client.read(BUCKET, name) != data
        except StookError:
            lost += 1
    return lost


async def refuses(net: Testnet, farmer: SimFarmer) -> bool:
    """Whether a farmer that can be reached keeps back what it is thought to hold, and does not say that it lost it."""
    renter = net.renter
    for placement in renter.store.stored_at(farmer.node_id)[:ASKED_FOR]:
        facts = renter.store.segments([placement.segment_id])[placement.segment_id]
        located = renter.agent.fetchable(facts, [placement], renter.key.public_key)
        units = unit_count(facts.shard_bytes)
        wish = Wish(1, facts.shard_bytes, 0, units, {placement.index: placement.root}, (placement.index,))
        fetcher = Fetcher(agent=renter.agent, endpoint=renter.endpoint, clock=renter.clock, offload=net.world.offload)
        try:
            await fetcher.retrieve(located.tickets[0], wish, memoryview(bytearray(units * UNIT_BYTES)))
        except (UnreachableError, DeadlineError):
            return False
        except RefusedError as error:
            if error.code is not ReasonCode.SHARD_LOST:
                return True
        except PeerError:
            return True
        else:
            return False
    return False


# --- 5.4 Hostage bytes -----------------------------------------------------------------------------------------------


def hostage_bytes(seed: int) -> Outcome:
    """n - k of every segment's holders store truly, answer everything else, and refuse to give anything back."""

    async def main() -> Outcome:
        hostile = dict.fromkeys(range(POLICY.n - POLICY.k), HoldsHostage)
        async with Testnet(farmers=POLICY.n, seed=seed, policy=POLICY, cast=hostile) as net:
            objects = {f"{number}": net.dice(200_000) for number in range(6)}
            await put(net, objects)
            begun = asyncio.get_running_loop().time()
            lost = await unread(net, objects)
            took = asyncio.get_running_loop().time() - begun
            refusals = sum(farmer.adversary.deeds for farmer in net.farmers if farmer.adversary is not None)
            blamed = set(await net.renter.blame())
            honest = len(blamed - set(hostile))
            detail = (
                f"{len(hostile)} of {POLICY.n} farmers refused {refusals} times; {len(objects) - lost} of "
                f"{len(objects)} objects were read whole in {took:.1f} virtual seconds."
            )
            return Outcome(not lost, lost, detail, honest)

    return run(main(), within_seconds=86_400)


# --- 5.6 Faithless farmer --------------------------------------------------------------------------------------------


def faithless_farmer(seed: int) -> Outcome:
    """Every farmer sells every shard to whoever pays, and the buyer even has the agent's masks."""

    async def main() -> Outcome:
        async with Testnet(farmers=POLICY.n, seed=seed, policy=POLICY) as net:
            text = b"".join(b"line %08d of a text that is easy to recognise\n" % number for number in range(1_000))
            await put(net, {"text": text})
            windows = {text[at : at + WINDOW] for at in range(0, len(text) - WINDOW, WINDOW)}
            store, found, bought = net.renter.store, 0, 0
            shards = {shard.root: farmer for farmer in net.farmers for shard in farmer.disk.scan()}
            for segment_id, placements in store.placements(store.segment_ids(2**62, b"", 1000)).items():
                mask_key = segment_mask_key(net.renter.keys.mask_root(), segment_id)
                for placement in placements:
                    data = _bought(shards[placement.root], placement.root)
                    bought += len(data)
                    bare = bytearray(len(data))
                    shard_mask(mask_key, placement.index)(data, memoryview(bare))
                    guessed = bytearray(len(data))
                    segment_cipher(bytes(32), 0)(memoryview(bare), memoryview(guessed))
                    for version in (data, bare, guessed):
                        found += _recognised(bytes(version), windows)
            detail = (
                f"All {bought:,} bytes were bought, masks given away: {found} of {len(windows):,} pieces of {WINDOW} "
                "bytes recognised under mask, without it, and under a guessed key. Without the agent the buyer does "
                f"not even know which shards belong together: the 4 right ones are among 100 of 10,000 with chance "
                f"{beach_chance(10_000, 4, 100):.0e} (paper, 6.3)."
            )
            return Outcome(not found, found, detail)

    return run(main(), within_seconds=86_400)


def _bought(farmer: SimFarmer, root: bytes) -> memoryview:
    (shard,) = [shard for shard in farmer.disk.scan() if shard.root == root]
    data = memoryview(bytearray(shard.size_bytes))
    farmer.disk.read_units(shard.root, 0, data)
    return data


def _recognised(data: bytes, windows: set[bytes]) -> int:
    return len(windows.intersection(data[at : at + WINDOW] for at in range(len(data) - WINDOW)))


ATTACKS = (
    Attack(
        name="hostage-bytes",
        paper="5.4",
        goal="keep an owner from bytes that it needs, for ransom",
        bound="every object is read whole though n - k of each segment's holders refuse",
        gain_unit="objects withheld",
        stops="any k shards do, and no operator, network or domain has k; who refuses is asked later and later",
        run=hostage_bytes,
    ),
    Attack(
        name="faithless-farmer",
        paper="5.6",
        goal="read data by buying shards from their farmers",
        bound="not one piece of 16 bytes is recognised in all shards together",
        gain_unit="pieces recognised",
        stops="shards are ciphertext under a mask of their own; content keys never leave the owner",
        run=faithless_farmer,
    ),
)
