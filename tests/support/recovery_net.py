"""A simulated renter whose catalog is saved on the network, and a second machine that has nothing but its words."""

from __future__ import annotations

import json
from pathlib import Path

from stook.renter.client import Client
from stook.renter.fetch import Fetcher
from stook.renter.journal_seal import JournalKeys
from stook.renter.recover import Recovered, Recovery, Wanted
from stook.renter.restorer import Restorer
from stook.renter.saver import RecordMaker, SaverRules
from stook.renter.slots import SlotPool
from stook.sim.nodes import SimRenter
from stook.sim.testnet import Testnet
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_memory import MemoryAgentStore

SETTINGS = json.dumps({"rent": {}})


def saving(net: Testnet, path: Path) -> SqlCatalog:
    """Give the renter of `net`, which does not run yet, a catalog on disk that is saved."""
    return give(net.renter, path)


def give(renter: SimRenter, path: Path) -> SqlCatalog:
    catalog = SqlCatalog.open(path)
    renter.catalog = catalog
    renter.journal = catalog.journal
    renter.saver_rules = SaverRules(settings=SETTINGS)
    return catalog


def other_machine(net: Testnet, name: str = "renter-2", seeds: tuple[int, ...] = (0,)) -> SimRenter:
    """The same words elsewhere; it knows one farmer."""
    other = SimRenter(net.world, name, net.renter.options, net.farmers)
    other.keys, other.key = net.renter.keys, net.renter.key
    other.seeds = [net.farmers[number].peer for number in seeds]
    return other


async def recover(renter: SimRenter, path: Path, wanted: Wanted | None = None, **rest: object) -> Recovered:
    """Recover on a machine that runs and has nothing. Leaves it stopped, with the catalog that came back."""
    await renter.start(chores=False)
    keys = JournalKeys(renter.keys.recovery_root())
    world = renter._world
    common = (renter.clock, renter._entropy, world.offload)
    restorer = Restorer(
        agent=renter.agent,
        fetcher=Fetcher(agent=renter.agent, endpoint=renter.endpoint, clock=renter.clock, offload=world.offload),
        node_key=renter.key.public_key,
        network=world.network_id,
        slots=SlotPool(renter.memory_budget_bytes),
        codec=world.codec,
        keys=keys,
        offload=world.offload,
    )
    recovery = Recovery(
        agent=renter.agent,
        restorer=restorer,
        pointers=renter.pointers(),
        keys=keys,
        maker=RecordMaker(renter.agent, renter.pointers(), keys, world.network_id, renter.key.public_key, *common),
        network=world.network_id,
        clock=renter.clock,
        entropy=renter._entropy,
        offload=world.offload,
        **rest,
    )
    try:
        came = await recovery.run(path, wanted or Wanted())
    finally:
        await renter.stop()
    give(renter, path)
    return came


async def laptop_lost(renter: SimRenter) -> None:
    """The machine dies, and everything on it."""
    await renter.die()
    renter.store = MemoryAgentStore()
    renter.catalog.close()


async def everything(client: Client) -> dict[tuple[str, str], tuple[int, bytes]]:
    """Every bucket, name, version and byte."""
    found = {}
    for bucket in await client.buckets():
        async for each in client.walk(bucket.name):
            found[bucket.name, each.name] = each.version, await client.read(bucket.name, each.name)
    return found
