"""What must be true of a network of farmers and one renter at any moment, asked of the farmers themselves.

The renter's database is read beside the renter, and farmers are asked with the renter's key over an endpoint of its
own, so that the code under test does not judge itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farm_network import Caller
from stook.assembly import AGENT_FILE, CATALOG_FILE, SystemClock, farmer_status, load_agent_keys, peer_of
from stook.cli.local_network import LocalNetwork
from stook.codec import decode, encode
from stook.contracts.contract import Contract
from stook.contracts.grant import Operation
from stook.contracts.messages import ContractPage, ListContracts, Method
from stook.errors import ReasonCode, RefusedError
from stook.ids import ContractId, NetworkId, NodeId, SegmentId
from stook.merkle import leaves_of, shard_root, split_leaves
from stook.renter.arrival import PASSING
from stook.storage.agent_store import SqlAgentStore
from stook.storage.catalog import SqlCatalog
from stook.storage.renter_ports import Placement, PlacementState
from stook.wire.endpoint import Endpoint, Peer
from stook.wire.tcp import TcpCarrier


@dataclass(frozen=True, slots=True)
class Place:
    """A farmer, as `farm_network.Caller` wants it."""

    peer: Peer


@dataclass
class Holdings:
    """What farmers say that they hold for the renter: contracts whose shard is there, and contracts without one."""

    stored: dict[ContractId, NodeId] = field(default_factory=dict)
    signed: dict[ContractId, NodeId] = field(default_factory=dict)
    contracts: dict[ContractId, Contract] = field(default_factory=dict)
    """As the farmers have them, both kinds."""
    offered: int = 0
    """Reservations that the renter never signed; they lapse at consign-by and bind nobody."""


@asynccontextmanager
async def asking(home: Path) -> AsyncIterator[Caller]:
    key, _ = load_agent_keys(home, None)
    clock = SystemClock()
    endpoint = Endpoint(
        key=key, network=NetworkId("local"), clock=clock, entropy=os.urandom, carrier=TcpCarrier(), on_error=_loud
    )
    try:
        yield Caller(key, endpoint, clock, first_serial=int.from_bytes(os.urandom(8), "big"))
    finally:
        await endpoint.close(grace_seconds=0)


def _loud(what: str, error: BaseException) -> None:
    raise AssertionError(what) from error


def placements(home: Path, network: LocalNetwork) -> list[Placement]:
    """Every placement that is not erased."""
    store = SqlAgentStore.open(home / AGENT_FILE)
    try:
        found: list[Placement] = []
        for farmer in network.farmers:
            node, after = peer_of(farmer.uri).node_id, b""
            while page := store.placements_at(node, after, 1000):
                found += page
                after = page[-1].contract_id
        return found
    finally:
        store.close()


def known_segments(home: Path) -> tuple[frozenset[SegmentId], frozenset[SegmentId]]:
    """The segments that the agent keeps, and those among them that the catalog knows, its own saves included."""
    store, catalog = SqlAgentStore.open(home / AGENT_FILE), SqlCatalog.open(home / CATALOG_FILE)
    try:
        kept: list[SegmentId] = []
        while page := store.segment_ids(2**62, kept[-1] if kept else b"", 1000):
            kept += page
        return frozenset(kept), catalog.known_segments(kept) | (catalog.journal.segments() & frozenset(kept))
    finally:
        store.close()
        catalog.close()


def uploads_left(home: Path) -> list[str]:
    """Names of uploads that are neither finished nor given up."""
    catalog = SqlCatalog.open(home / CATALOG_FILE)
    try:
        return [f"{upload.name} {upload.fingerprint.hex()}" for upload in catalog.stale_uploads(2**62, 1000)]
    finally:
        catalog.close()


def kept_bytes(home: Path, found: list[Placement]) -> int:
    """Receipted shard bytes of uploads that another run can go on with, of objects that are not there yet."""
    catalog = SqlCatalog.open(home / CATALOG_FILE)
    try:
        resumable = {
            entry.segment_id
            for upload in catalog.stale_uploads(2**62, 1000)
            if not upload.fingerprint.startswith(PASSING) and catalog.get(upload.bucket, upload.name) is None
            for entry in catalog.upload_segments(upload.upload_id).values()
        }
    finally:
        catalog.close()
    stored = in_state(found, PlacementState.STORED).values()
    return sum(each.contract.terms.shard_size_bytes for each in stored if each.segment_id in resumable)


async def examine(home: Path, network: LocalNetwork, *, verify: bool) -> Holdings:
    """Ask every farmer that runs. With `verify` every shard is fetched and hashed; what is not there is refused."""
    holdings = Holdings()
    async with asking(home) as caller:
        for farmer in network.farmers:
            if not farmer.alive:
                continue
            place = Place(peer_of(farmer.uri))
            listed = [item async for item in _listed(caller, place)]
            if verify:
                gone = await asyncio.gather(*(_verify(caller, place, contract, stored) for contract, stored in listed))
                listed = [item for item, is_gone in zip(listed, gone, strict=True) if not is_gone]
            for contract, stored in listed:
                if not contract.renter_signature:
                    holdings.offered += 1
                    assert not stored
                    continue
                holdings.contracts[contract.contract_id] = contract
                if stored:
                    holdings.stored[contract.contract_id] = place.peer.node_id
                else:
                    holdings.signed[contract.contract_id] = place.peer.node_id
    return holdings


async def _listed(caller: Caller, place: Place) -> AsyncIterator[tuple[Contract, bool]]:
    after = b""
    while True:
        reply = await caller.endpoint.call(
            place.peer, Method.LIST_CONTRACTS, encode(ListContracts(after, 256)), deadline_seconds=30
        )
        page = decode(ContractPage, reply)
        for listed in page.contracts:
            yield listed.contract, listed.stored
            after = listed.contract.contract_id
        if not page.more:
            return


async def _verify(caller: Caller, place: Any, contract: Contract, stored: bool) -> bool:
    """A shard that is there is whole and the one agreed upon; of one that is not there nothing is served.

    Whether the contract went meanwhile: a farmer finishes what a client asked for that was killed while it waited.
    """
    terms = contract.terms
    try:
        blob, data = await caller.retrieve(place, caller.grant(contract, Operation.RETRIEVE))
    except RefusedError as refusal:
        if refusal.code is ReasonCode.UNKNOWN_CONTRACT:
            return True
        if stored or refusal.code is not ReasonCode.NOT_STORED_YET:
            raise
        return False
    assert len(data) == terms.shard_size_bytes
    leaves = leaves_of(memoryview(data))
    assert leaves == split_leaves(blob)
    assert shard_root(len(data), leaves) == terms.shard_root
    return False


async def bytes_in(network: LocalNetwork) -> int:
    """Shard bytes that reached the farmers since each of them started."""
    statuses = await asyncio.gather(*(farmer_status(farmer.home) for farmer in network.farmers))
    return sum(status["bytes_in"] for status in statuses)


def in_state(found: list[Placement], state: PlacementState) -> Mapping[ContractId, Placement]:
    """Those of the placements that are in `state`."""
    return {placement.contract_id: placement for placement in found if placement.state is state}
