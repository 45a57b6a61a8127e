"""Runs lookups over sessions: asks whom the machine wants asked, believes only what verifies, tells the table."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from stook.clock import Clock
from stook.codec import decode, encode
from stook.contracts.announcement import MAX_CLOCK_SKEW_MS
from stook.errors import MalformedError, MisbehaviourError, PeerError, ReasonCode, RefusedError
from stook.identity.contact import CONTACT_VERSION, AddressKind, SignedContact
from stook.identity.pow import puzzle_bits
from stook.ids import NetworkId, NodeId
from stook.overlay.lookup import Lookup, LookupRules
from stook.overlay.messages import MAX_CONTACTS, FindNode, FindValue, NodesReply, OverlayMethod, ValueReply
from stook.overlay.records import OverlayKey, SignedRecord, check_record
from stook.overlay.routing_table import Node, Outcome, RoutingTable, network_of
from stook.wire.endpoint import Endpoint, Peer, Reached

MAX_TABLE_CONTACT_BYTES = 1024
CALL_SECONDS = 5.0
PATIENCE_SECONDS = 2.0
"""After so long a lookup asks somebody else too; the answer still counts when it comes."""
OUTAGE_MS = 60_000
"""With nobody heard for so long, failures are our own line's."""
PROBED_ADDRESSES = 2
"""A node behind a router names its own network's address and the world's; more would be calls for an attacker."""
STRANGER_MS = 3_600_000
"""How long a node that serves no overlay is left out."""
MAX_CANDIDATES = 256
MAX_CANDIDATES_PER_NETWORK = 8
_MAX_CHECKED = 4096


@dataclass(slots=True)
class Found:
    """What a search found: the nearest nodes, and for a value who had which records."""

    lookup: Lookup
    nodes: list[Node]
    records: dict[NodeId, tuple[SignedRecord, ...]] = field(default_factory=dict)


class Searcher:
    """One node's eyes: its table, kept by everything it hears, and its lookups."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        network: NetworkId,
        clock: Clock,
        table: RoutingTable,
        puzzle: int,
        share_network: bool,
        on_candidate: Callable[[], None],
    ) -> None:
        self.table = table
        self.candidates: OrderedDict[NodeId, Node] = OrderedDict()
        """Who called us and has not been reached at an address of its own yet."""
        self.to_ping: OrderedDict[NodeId, Node] = OrderedDict()
        """Old contacts for whose places somebody waits."""
        self.heard_ms = 0
        """When anybody answered last."""
        self.asked = 0
        """Requests sent since the start."""
        self._endpoint = endpoint
        self._network = network
        self._clock = clock
        self._puzzle = puzzle
        self._share_network = share_network
        self._on_candidate = on_candidate
        self._checked: OrderedDict[SignedContact, bool] = OrderedDict()
        self._doubted: list[tuple[NodeId, int]] = []
        """Who did not answer while nobody did."""
        self._strangers: OrderedDict[NodeId, int] = OrderedDict()
        """Nodes that serve no overlay, and when that was found out."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._reached: OrderedDict[NodeId, str] = OrderedDict()
        """The networks in which nodes were called at addresses of their own."""
        self._sessions: OrderedDict[NodeId, str] = OrderedDict()
        """The networks that sessions with nodes came from or led to, whatever addresses these name."""

    # --- what is heard -----------------------------------------------------------------------------------------------

    def noticed(self, contact: SignedContact, reached: Reached | None) -> None:
        """A session opened: `reached` says where we called, None that the peer called us."""
        if not self._is_acceptable(contact):
            return
        node = Node.of(contact)
        if self._is_stranger(node.node_id):
            return
        at_home = reached is not None and any(
            (address.host, address.port) == (reached.host, reached.port) for address in contact.contact.addresses
        )
        if reached is not None and at_home:
            self._saw(node, network_of(reached.remote_host, reached.port))
        else:
            self.table.renewed(node)
            self._consider(node)

    def session_opened(self, peer: NodeId, host: str) -> None:
        """There is a session with a peer, whoever opened it; `host` is where the other end is."""
        alone = f"{host}:0"  # on our own LAN nobody shares a network with others
        network = network_of(host, 0)
        _put(self._sessions, peer, "" if network == alone else network)

    def called(self, peer: NodeId) -> None:
        """A peer asked us something."""
        self.table.heard(peer, now_ms=self._clock.now_ms())

    def acceptable(self, contacts: Iterable[SignedContact]) -> list[Node]:
        """Those that might enter a table; where the table knows a newer contact of a node, that one."""
        nodes = []
        for contact in contacts:
            if self._is_acceptable(contact):
                node = Node.of(contact)
                known = self.table.get(node.node_id)
                older = known is not None and known.contact.contact.sequence >= contact.contact.sequence
                if not self._is_stranger(node.node_id):
                    nodes.append(known if known is not None and older else node)
        return nodes

    # --- asking ------------------------------------------------------------------------------------------------------

    async def ask(self, node: Node, method: str, payload: bytes) -> bytes | None:
        """One request; None when there is no good answer. The table hears of it."""
        self.asked += 1
        try:
            reply = await self._endpoint.call(Peer.of(node.contact), method, payload, deadline_seconds=CALL_SECONDS)
        except RefusedError as refusal:
            if refusal.code is ReasonCode.UNKNOWN_METHOD:
                self._leave_out(node.node_id)
            else:
                self._answered(node)
            return None
        except PeerError:
            self._failed(node)
            return None
        self._answered(node)
        return reply

    async def ping(self, node: Node) -> bool:
        """Whether a node still answers."""
        self.asked += 1
        try:
            await self._endpoint.ping(Peer.of(node.contact), deadline_seconds=CALL_SECONDS)
        except PeerError:
            self._failed(node)
            return False
        self._answered(node)
        return True

    async def probe(self, node: Node) -> None:
        """Call a candidate at its own addresses; `noticed` hears of it if it is there."""
        direct = [address for address in node.contact.contact.addresses if address.kind is AddressKind.DIRECT]
        for address in direct[:PROBED_ADDRESSES]:
            self.asked += 1
            try:
                found = await self._endpoint.probe(address.host, address.port, deadline_seconds=CALL_SECONDS)
            except PeerError:
                continue
            if found.node_id == node.node_id:
                return

    async def search(
        self, target: bytes, rules: LookupRules, *, value: bool = False, start: Iterable[Node] = ()
    ) -> Found:
        """Look for the nodes nearest `target`, and for the records there."""
        nearest = self.table.closest(target, max(rules.k, rules.alpha * rules.paths))
        lookup = Lookup(target, self.table.own_id, [*nearest, *start], rules)
        found = Found(lookup, [])
        answers: asyncio.Queue[tuple[Node, list[Node] | None]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        waiting: set[NodeId] = set()

        async def one(node: Node) -> None:
            patience = loop.call_later(PATIENCE_SECONDS, answers.put_nowait, (node, None))
            contacts = await self._ask_for(node, target, found, value=value)
            patience.cancel()
            answers.put_nowait((node, contacts))

        while True:
            for node in lookup.next_nodes():
                waiting.add(node.node_id)
                self._spawn(one(node))
            if not waiting:
                break
            node, contacts = await answers.get()
            waiting.discard(node.node_id)
            if contacts is None:
                lookup.failed(node)
            else:
                lookup.answered(node, contacts, network=self._place_of(node.node_id))
        self.table.looked_up(target, now_ms=self._clock.now_ms())
        found.nodes = lookup.result()
        return found

    async def close(self) -> None:
        """End the requests that nobody waits for any more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _place_of(self, peer: NodeId) -> str:
        """In which network a node is as far as we have seen: one that called us may name any address as its own."""
        return self._reached.get(peer) or self._sessions.get(peer, "")

    async def _ask_for(self, node: Node, target: bytes, found: Found, *, value: bool) -> list[Node] | None:
        if value:
            reply = await self.ask(node, OverlayMethod.FIND_VALUE, encode(FindValue(NodeId(target), MAX_CONTACTS)))
        else:
            reply = await self.ask(node, OverlayMethod.FIND_NODE, encode(FindNode(NodeId(target), MAX_CONTACTS)))
        if reply is None:
            return None
        try:
            if not value:
                return self.acceptable(decode(NodesReply, reply).contacts)
            answer = decode(ValueReply, reply)
        except MalformedError:
            return None
        found.records[node.node_id] = tuple(one for one in answer.records if self._is_record(one, target))
        return self.acceptable(answer.contacts)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_record(self, signed: SignedRecord, key: bytes) -> bool:
        if signed.key != OverlayKey(key):
            return False
        try:
            check_record(signed, network=self._network, now_ms=self._clock.now_ms(), puzzle=self._puzzle)
        except (MisbehaviourError, MalformedError):
            return False
        return True

    def _is_acceptable(self, contact: SignedContact) -> bool:
        """Whether a contact may be called at all; remembered, since the same ones are named again and again."""
        known = self._checked.get(contact)
        if known is None:
            known = self._check(contact)
            self._checked[contact] = known
            if len(self._checked) > _MAX_CHECKED:
                self._checked.popitem(last=False)
        return known and contact.contact.issued_ms <= self._clock.now_ms() + MAX_CLOCK_SKEW_MS

    def _check(self, contact: SignedContact) -> bool:
        text = contact.contact
        return (
            text.version == CONTACT_VERSION
            and text.network == self._network
            and contact.node_id != self.table.own_id
            and any(address.kind is AddressKind.DIRECT for address in text.addresses)
            and len(encode(contact)) <= MAX_TABLE_CONTACT_BYTES
            and puzzle_bits(text.public_key, text.puzzle_nonce) >= self._puzzle
            and contact.verifies()
        )

    def _consider(self, node: Node) -> None:
        """Let a node wait to be called at its own address, if the table might have a place for it."""
        if not self.table.wants(node):
            return
        if node.node_id not in self.candidates:
            crowd = sum(one.network == node.network for one in self.candidates.values())
            crowded = crowd >= MAX_CANDIDATES_PER_NETWORK and not self._share_network
            if len(self.candidates) >= MAX_CANDIDATES or crowded:
                return
        self.candidates[node.node_id] = node
        self._on_candidate()

    def _saw(self, node: Node, network: str) -> None:
        now_ms = self._clock.now_ms()
        self.candidates.pop(node.node_id, None)
        _put(self._reached, node.node_id, network)
        seen = self.table.seen(node, network, now_ms=now_ms)
        if seen.outcome is Outcome.CACHED and seen.ping is not None:
            self.to_ping[seen.ping.node_id] = seen.ping

    def _answered(self, node: Node) -> None:
        now_ms = self._clock.now_ms()
        self.heard_ms = now_ms
        doubted, self._doubted = self._doubted, []
        for node_id, since_ms in doubted:
            if now_ms - since_ms < OUTAGE_MS:
                self.table.failed(node_id)
        self.table.heard(node.node_id, now_ms=now_ms)
        self._consider(node)

    def _failed(self, node: Node) -> None:
        """Count a failure, once somebody else answers within a minute of it: else it may be our own line."""
        now_ms = self._clock.now_ms()
        self.candidates.pop(node.node_id, None)
        if now_ms - self.heard_ms < OUTAGE_MS:
            self.table.failed(node.node_id)
        else:
            self._doubted = [*self._doubted[-MAX_CANDIDATES:], (node.node_id, now_ms)]

    def _is_stranger(self, node_id: NodeId) -> bool:
        return self._clock.now_ms() - self._strangers.get(node_id, -STRANGER_MS) < STRANGER_MS

    def _leave_out(self, node_id: NodeId) -> None:
        self.table.forget(node_id)
        self._strangers[node_id] = self._clock.now_ms()
        if len(self._strangers) > _MAX_CHECKED:
            self._strangers.popitem(last=False)


def _put(known: OrderedDict[NodeId, str], peer: NodeId, network: str) -> None:
    known[peer] = network
    known.move_to_end(peer)
    if len(known) > _MAX_CHECKED:
        known.popitem(last=False)
