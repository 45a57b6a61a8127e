"""The overlay at work: one node's door to the network. Sessions, timers and dice are here; decisions are not.

Start with `OverlayNode`; `stook.overlay.ports.Overlay` says what it promises, `docs/protocol/overlay.md` what it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stook.chore import Chore
from stook.clock import Clock, Entropy, Offload
from stook.codec import decode, encode
from stook.errors import EnvironmentFault, MalformedError, PeerError
from stook.identity.contact import SignedContact
from stook.ids import NODE_ID_BYTES, NetworkId, NodeId
from stook.overlay.desk import Desk
from stook.overlay.lookup import LookupRules
from stook.overlay.messages import (
    MAX_CONTACTS,
    MAX_RECORDS_STORED,
    FindNode,
    NodesReply,
    OverlayMethod,
    Store,
    StoreReply,
)
from stook.overlay.ports import OverlayMemory, RecordSource
from stook.overlay.record_store import Allowance, PeerLimits, RecordStore, StoreLimits
from stook.overlay.records import HOUR_MS, OverlayKey, SignedRecord, check_record, newest
from stook.overlay.routing_table import K, Node, RoutingTable, TableRules
from stook.overlay.searcher import CALL_SECONDS, Found, Searcher
from stook.wire.endpoint import Endpoint, Peer

REMEMBERED_CONTACTS = 256
_ENTRIES_AT_ONCE = 16
_ENTRIES_ENOUGH = 8
_CHECKED_AT_ONCE = 8
_REFRESHED_AT_ONCE = 4
_REPLICATED_AT_ONCE = 512
_MENDED = 2
_OLD_MS = 30 * 60_000
_SILENT_MS = 10 * 60_000
_ASKED_IN_SILENCE = 4
_PUBLISH_AGAIN_MS = 6 * HOUR_MS
_SAMPLE_LOOKUPS = 8


@dataclass(frozen=True, slots=True)
class OverlayIntervals:
    """Seconds between the runs of each chore."""

    check: float = 30.0
    refresh: float = 600.0
    rejoin: float = 60.0
    replicate: float = 300.0
    publish: float = 3600.0
    remember: float = 300.0


@dataclass(frozen=True, slots=True)
class OverlaySettings:
    """How one node takes part."""

    member: bool = True
    """Serves and may be in others' tables; a guest only asks."""
    share_network: bool = False
    """All nodes are on one machine or behind one address: no limits per network."""
    puzzle_bits: int = 0
    table: TableRules = field(default_factory=TableRules)
    lookup: LookupRules = field(default_factory=LookupRules)
    store: StoreLimits = field(default_factory=StoreLimits)
    intervals: OverlayIntervals = field(default_factory=OverlayIntervals)
    probes: Allowance = field(default_factory=lambda: Allowance(burst=64, per_second=1))
    """Calls to addresses that strangers named: or they would have us call whom they like."""


class OverlayNode:
    """Fulfils `ports.Overlay`. The caller owns endpoint and memory; `endpoint.contact` is set before `start`."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        network: NetworkId,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        memory: OverlayMemory,
        seeds: Sequence[Peer] = (),
        settings: OverlaySettings = OverlaySettings(),
        on_error: Callable[[str, Exception], None],
        on_record: Callable[[SignedRecord], None] = lambda _: None,
    ) -> None:
        rules, lookup = settings.table, settings.lookup
        if settings.share_network:
            rules, lookup = rules.without_network_limits(), replace(lookup, max_per_network=None)
        self.settings = settings
        self.table = RoutingTable(endpoint.node_id, rules)
        self.records = RecordStore(endpoint.node_id, network, settings.store, puzzle_bits=settings.puzzle_bits)
        self._lookup_rules = lookup
        self._quick_rules = replace(lookup, k=lookup.k // 2, paths=1)
        """For refreshing: nobody's answer matters much."""
        self._endpoint = endpoint
        self._network = network
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._memory = memory
        self._seeds = tuple(seed for seed in seeds if seed.node_id != endpoint.node_id)
        self._on_error = on_error
        self._searcher = Searcher(
            endpoint=endpoint,
            network=network,
            clock=clock,
            table=self.table,
            puzzle=settings.puzzle_bits,
            share_network=settings.share_network,
            on_candidate=self._candidate_came,
        )
        self._desk = Desk(self._searcher, self.records, memory, clock, offload, on_record)
        self._probes = PeerLimits(settings.probes, max_peers=1)
        self._remembered: tuple[SignedContact, ...] = ()
        self._reloaded: tuple[SignedRecord, ...] = ()
        """Of an earlier run: whether they are near us is seen once we have joined."""
        self._sources: list[RecordSource] = []
        self._published: dict[OverlayKey, tuple[bytes, int]] = {}
        """Of own records: what was said, and when it was brought last."""
        self._tasks: set[asyncio.Task[object]] = set()
        self._joining = asyncio.Lock()
        self._probing = False
        self._looked_home_ms = 0
        every = settings.intervals
        self.chores: Mapping[str, Chore] = {
            "check": Chore("check", every.check, self.check, on_error),
            "refresh": Chore("refresh", every.refresh, self.refresh, on_error),
            "rejoin": Chore("rejoin", every.rejoin, self.rejoin, on_error),
            "replicate": Chore("replicate", every.replicate, self.replicate, on_error),
            "publish": Chore("publish", every.publish, self.publish, on_error),
            "remember": Chore("remember", every.remember, self.remember, on_error),
        }
        """By name, to pause and to step."""

    @property
    def node_id(self) -> NodeId:
        """Whose it is."""
        return self.table.own_id

    @property
    def requests_sent(self) -> int:
        """Since the start, chores included."""
        return self._searcher.asked

    # --- beginning and end -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve, load what was remembered, let the chores run; a member joins in the background, at once."""
        self._remembered = await self._offload(self._memory.contacts)
        self._reloaded = await self._desk.load()
        self._endpoint.on_session = self._searcher.session_opened
        self._endpoint.on_contact = self._searcher.noticed
        if self.settings.member:
            self._endpoint.handle(OverlayMethod.FIND_NODE, self._desk.find_node)
            self._endpoint.handle(OverlayMethod.FIND_VALUE, self._desk.find_value)
            self._endpoint.handle(OverlayMethod.STORE, self._desk.store)
        for name, chore in self.chores.items():
            task = asyncio.create_task(chore.run(), name=f"overlay-{name}")
            self._tasks.add(task)
        if self.settings.member:
            self.chores["rejoin"].trigger()  # a guest joins when it first looks for something

    async def stop(self) -> None:
        """End chores and what runs behind, and write the contacts file. The endpoint stays open."""
        self._endpoint.on_contact = self._endpoint.on_session = None
        tasks, self._tasks = list(self._tasks), set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._searcher.close()
        try:
            await self.remember()
        except EnvironmentFault as error:
            self._on_error("remember", error)

    async def join(self, seeds: Sequence[Peer] = ()) -> int:
        """Enter through these seeds, the node's own, and remembered contacts; how many contacts there are then."""
        async with self._joining:
            entries = {peer.node_id: peer for peer in (*seeds, *self._seeds, *map(Peer.of, self._remembered))}
            entries.pop(self.node_id, None)
            waiting, heard, answered = list(entries.values()), list[Node](), 0
            while waiting and answered < _ENTRIES_ENOUGH:
                some, waiting = waiting[:_ENTRIES_AT_ONCE], waiting[_ENTRIES_AT_ONCE:]
                for contacts in await asyncio.gather(*map(self._enter, some)):
                    answered += contacts is not None
                    heard += contacts or ()
            if not answered and not len(self.table):
                return 0
            self._looked_home_ms = self._clock.now_ms()
            await self._searcher.search(self.node_id, self._lookup_rules, start=heard)
            await self._check_candidates()
            for index in self.table.unrefreshed_since(self._clock.now_ms() - HOUR_MS):
                await self._refresh_bucket(index)
            self._shorten_reloaded()
            self.chores["publish"].trigger()
            self._remember_growth()
            return len(self.table)

    async def meet(self, peer: Peer) -> None:
        """Somebody was heard near by: a way in for who is alone, and one more contact for who is not."""
        if len(self.table):
            await self._enter(peer)
        else:
            await self.join((peer,))

    # --- finding -----------------------------------------------------------------------------------------------------

    async def find_node(self, target: NodeId) -> tuple[SignedContact, ...]:
        """The contacts nearest `target`, nearest first, at most 20, each of which has just answered."""
        found = await self._search(target, self._lookup_rules)
        return tuple(node.contact for node in found.nodes)

    async def find_value(self, key: OverlayKey) -> tuple[SignedRecord, ...]:
        """The newest record of each publisher under `key`; the nearest holders that lack it are given it."""
        found = await self._search(key, self._lookup_rules, value=True)
        own = self.records.get(key, now_ms=self._clock.now_ms())
        best = newest([*own, *(one for records in found.records.values() for one in records)])
        lacking = [node for node in found.nodes if set(best) - set(found.records.get(node.node_id, ()))]
        for node in lacking[:_MENDED]:
            missing = [one for one in best if one not in found.records.get(node.node_id, ())]
            self._behind(self._bring(node, missing[:MAX_RECORDS_STORED]))
        return tuple(one for one in best if one.record.body)

    async def store(self, record: SignedRecord) -> int:
        """Bring a record to the nodes nearest its key; how many keep it. Raises `MisbehaviourError` for a bad one."""
        now_ms = self._clock.now_ms()
        check_record(record, network=self._network, now_ms=now_ms, puzzle=self.settings.puzzle_bits)
        found = await self._search(record.key, self._lookup_rules)
        kept = sum(await asyncio.gather(*(self._bring(node, [record]) for node in found.nodes)))
        if self.settings.member and self.table.nearer_than(record.key, K) < K:
            kept += (await self._desk.keep(record)).code == 0
        return kept

    def add_source(self, source: RecordSource) -> None:
        """Let the `publish` chore bring these records."""
        self._sources.append(source)
        if self._tasks:
            self.chores["publish"].trigger()

    def neighbours(self) -> tuple[SignedContact, ...]:
        """Verified contacts of the table, nearest to the node's own id first."""
        return tuple(node.contact for node in self.table.neighbours())

    def closest(self, target: bytes, count: int) -> tuple[SignedContact, ...]:
        """What the table alone knows near `target`."""
        return tuple(node.contact for node in self.table.closest(target, count))

    async def sample(self, count: int) -> tuple[SignedContact, ...]:
        """Contacts from all over the network."""
        found: dict[NodeId, SignedContact] = {}
        for _ in range(_SAMPLE_LOOKUPS):
            before = len(found)
            target = self._entropy(NODE_ID_BYTES)
            for node in (await self._search(target, self._quick_rules)).nodes:
                found.setdefault(node.node_id, node.contact)
            if len(found) >= count or (len(found) == before and len(found) >= len(self.table)):
                break
        for node in self.table.neighbours():  # in a small network, all that there are
            found.setdefault(node.node_id, node.contact)
        return tuple(found.values())[:count]

    def status(self) -> dict[str, int]:
        """Figures for people and for `--json`."""
        return {
            "contacts": len(self.table),
            "siblings": len(self.table.siblings()),
            "records": len(self.records),
            "record_bytes": self.records.size_bytes,
            "requests_sent": self.requests_sent,
        }

    # --- chores ------------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Ping old contacts, above all those for whose places somebody waits; probe candidates."""
        waited_for = [self._searcher.to_ping.popitem(last=False)[1] for _ in range(len(self._searcher.to_ping))]
        old = self.table.unseen_since(self._clock.now_ms() - _OLD_MS, _CHECKED_AT_ONCE)
        nodes = {node.node_id: node for node in (*waited_for, *old)}
        await asyncio.gather(*map(self._searcher.ping, list(nodes.values())[: 2 * _CHECKED_AT_ONCE]))
        await self._check_candidates()

    async def refresh(self) -> None:
        """Look near the own id, and in buckets, near which nobody looked for an hour."""
        if not len(self.table):
            return
        now_ms = self._clock.now_ms()
        before_ms = now_ms - HOUR_MS
        if self._looked_home_ms <= before_ms:
            self._looked_home_ms = now_ms
            await self._searcher.search(self.node_id, self._lookup_rules)
        for index in self.table.unrefreshed_since(before_ms)[:_REFRESHED_AT_ONCE]:
            await self._refresh_bucket(index)

    async def rejoin(self) -> None:
        """Join again when the node is alone: it knows nobody, or after a long silence those it asks do not answer."""
        if len(self.table):
            if self._clock.now_ms() - self._searcher.heard_ms <= _SILENT_MS:
                return
            nodes = self.table.neighbours()[:_ASKED_IN_SILENCE]
            if any(await asyncio.gather(*map(self._searcher.ping, nodes))):
                return
        await self.join()

    async def replicate(self) -> None:
        """Drop what is past its time, and bring what nobody brought for an hour to the nodes nearest it."""
        await self._desk.expire()
        now_ms = self._clock.now_ms()
        loads: dict[NodeId, tuple[Node, list[SignedRecord]]] = {}
        for signed in self.records.due(_REPLICATED_AT_ONCE, now_ms=now_ms):
            if self.table.nearer_than(signed.key, K) < K:
                for node in self.table.closest(signed.key, K):
                    loads.setdefault(node.node_id, (node, []))[1].append(signed)
        for node, records in loads.values():
            for begin in range(0, len(records), MAX_RECORDS_STORED):
                await self._bring(node, records[begin : begin + MAX_RECORDS_STORED])

    async def publish(self) -> None:
        """Bring the node's own records that changed or are due."""
        for source in self._sources:
            for signed in await source():
                body, when_ms = self._published.get(signed.key, (b"", 0))
                now_ms = self._clock.now_ms()
                if body == signed.record.body and now_ms < when_ms + _PUBLISH_AGAIN_MS:
                    continue
                if await self.store(signed):
                    self._published[signed.key] = signed.record.body, now_ms

    async def remember(self) -> None:
        """Write down whom to ask first after a restart. Raises `EnvironmentFault`."""
        contacts = self.neighbours()
        step = max(1, -(-len(contacts) // REMEMBERED_CONTACTS))
        merged = {contact.node_id: contact for contact in contacts[::step]}
        for contact in self._remembered:  # behind those of now: a short run meets few of them
            merged.setdefault(contact.node_id, contact)
        remembered = tuple(merged.values())[:REMEMBERED_CONTACTS]
        if set(remembered) != set(self._remembered):
            self._remembered = remembered
            await self._offload(lambda: self._memory.save_contacts(remembered))

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _search(self, target: bytes, rules: LookupRules, *, value: bool = False) -> Found:
        """A lookup for somebody else's sake; who knows nobody yet joins first."""
        if not len(self.table):
            await self.join()
        return await self._searcher.search(target, rules, value=value)

    async def _enter(self, peer: Peer) -> list[Node] | None:
        """Ask a way in for nodes near us; None when it does not answer."""
        payload = encode(FindNode(self.node_id, MAX_CONTACTS))
        try:
            reply = await self._endpoint.call(peer, OverlayMethod.FIND_NODE, payload, deadline_seconds=CALL_SECONDS)
            contacts = decode(NodesReply, reply).contacts
        except PeerError:
            return None
        self._searcher.heard_ms = self._clock.now_ms()
        return self._searcher.acceptable(contacts)

    def _shorten_reloaded(self) -> None:
        """Copies of far keys live on for minutes, not for the rest of their year."""
        reloaded, self._reloaded = self._reloaded, ()
        for signed in reloaded:
            nearer = self.table.nearer_than(signed.key, 2 * K)
            self.records.shorten(signed, nearer=nearer, now_ms=self._clock.now_ms())

    async def _refresh_bucket(self, index: int) -> None:
        target = self.table.id_in_bucket(index, self._entropy(NODE_ID_BYTES))
        await self._searcher.search(target, self._quick_rules)

    def _candidate_came(self) -> None:
        if not self._probing and self._tasks:
            self._behind(self._check_candidates())

    async def _check_candidates(self) -> None:
        """Call candidates at their own addresses, as long as there are any and we may."""
        if self._probing:
            return
        self._probing = True
        try:
            candidates = self._searcher.candidates
            while candidates:
                due: list[Node] = []
                while candidates and len(due) < _CHECKED_AT_ONCE:
                    if self._probes.wait_ms(self.node_id, 1, now_ms=self._clock.now_ms()):
                        return  # later: strangers must not have us call whom they like
                    node = candidates.popitem(last=False)[1]
                    if self.table.wants(node):
                        due.append(node)
                await asyncio.gather(*map(self._searcher.probe, due))
        finally:
            self._probing = False
            self._remember_growth()

    def _remember_growth(self) -> None:
        """Write down soon whom we know when that is twice as many as was written: a kill may come at any time, and who
        remembers nobody but a seed that is gone has no way back."""
        known = len(self._remembered)
        if len(self.table) >= 2 * known and known <= REMEMBERED_CONTACTS // 2:
            self.chores["remember"].trigger()

    async def _bring(self, node: Node, records: Sequence[SignedRecord]) -> int:
        """STORE at one node; how many of the records it keeps."""
        reply = await self._searcher.ask(node, OverlayMethod.STORE, encode(Store(tuple(records))))
        if reply is None:
            return 0
        try:
            return sum(answer.code == 0 for answer in decode(StoreReply, reply).answers[: len(records)])
        except MalformedError:
            return 0

    def _behind(self, work: Coroutine[Any, Any, object]) -> None:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
