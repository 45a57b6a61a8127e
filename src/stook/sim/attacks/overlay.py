"""Attacks on the overlay: a stolen id, a swarm, an eclipse, a flood of a table, and yesterday's records."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from contextlib import suppress

from stook.codec import decode, encode
from stook.errors import PeerError
from stook.identity.contact import Address, AddressKind, SignedContact, sign_contact
from stook.ids import NODE_ID_BYTES, SIGNATURE_BYTES, NodeId, Signature
from stook.overlay.lookup import LookupRules
from stook.overlay.messages import FindValue, NodesReply, OverlayMethod, Store, StoreReply, ValueReply
from stook.overlay.records import (
    OverlayKey,
    RecordKind,
    SignedRecord,
    announcement_key,
    contact_key,
    contact_record,
    sign_record,
)
from stook.overlay.routing_table import K, Node, TableRules
from stook.sim.attacks.outcome import Attack, Outcome
from stook.sim.dice import Dice
from stook.sim.factories import NETWORK, node_key
from stook.sim.loop import START_MS, VirtualClock, run
from stook.sim.overlay import Citizen, City, Friends
from stook.sim.overlay_net import PORT, OverlayNet, OverlayPeer
from stook.wire.endpoint import Endpoint, Exchange, Peer

_NODES = 24
_CALL_SECONDS = 10.0


def _host_of(contact: SignedContact) -> str:
    return contact.contact.addresses[0].host


async def _offer(by: OverlayPeer, to: OverlayPeer, record: SignedRecord) -> bool:
    """Whether a node keeps a record that another brings."""
    request = encode(Store((record,)))
    try:
        reply = await by.endpoint.call(to.peer, OverlayMethod.STORE, request, deadline_seconds=_CALL_SECONDS)
    except PeerError:
        return False
    return decode(StoreReply, reply).answers[0].code == 0


# --- 5.1 Spartacus ---------------------------------------------------------------------------------------------------


def id_thief(seed: int) -> Outcome:
    """A node moves. At its old address somebody says that he is it, and an accomplice names him to all who ask."""

    async def main() -> Outcome:
        async with OverlayNet(_NODES, seed=seed) as net:
            await net.join_all()
            victim, helper = net.nodes[5], net.nodes[9]
            old = victim.contact()
            await victim.die()
            await asyncio.sleep(60)
            victim.move("45.99.1.1")
            await victim.start()
            await victim.overlay.join()
            thief = await _stand_in(net, victim, _host_of(old))
            forged = _forged(victim.contact(), _host_of(old))

            async def name_him(exchange: Exchange, _payload: bytes) -> None:
                await exchange.reply(encode(NodesReply((forged, old))))

            helper.endpoint.handle(OverlayMethod.FIND_NODE, name_him)
            others = [node for node in net.living if node not in (victim, helper)]
            astray = 0
            for node in others:
                found = await node.overlay.find_node(victim.node_id)
                astray += any(one.node_id == victim.node_id and _host_of(one) == _host_of(old) for one in found)
            believed = 0
            for node in others:
                known = node.overlay.table.get(victim.node_id)
                believed += known is not None and _host_of(known.contact) == _host_of(old) and await _leads(node, known)
            own = contact_record(victim.key, victim.contact(), now_ms=victim.clock.now_ms())
            record = SignedRecord(own.record, helper.key.sign(own.record.digest))
            kept = sum([await _offer(helper, node, record) for node in others])
            await thief.close(grace_seconds=0)
            detail = (
                f"Of {len(others)} nodes, {astray} were led to the old address by a lookup, {believed} found somebody "
                f"there whom they believed; {kept} kept a record that another key had signed in its name."
            )
            return Outcome(not astray + believed + kept, astray + believed + kept, detail)

    return run(main(), within_seconds=86_400)


async def _stand_in(net: OverlayNet, victim: OverlayPeer, host: str) -> Endpoint:
    key = node_key(net.dice.child("thief"))
    key.node_id = victim.node_id
    thief = Endpoint(
        key=key,
        network=NETWORK,
        clock=VirtualClock(),
        entropy=net.dice.child("thief's entropy"),
        carrier=net.network.carrier(host),
    )
    await thief.listen(host, PORT)
    return thief


def _forged(contact: SignedContact, host: str) -> SignedContact:
    """The victim's contact with another address, newer, and not signed by it."""
    address = Address(AddressKind.DIRECT, host, PORT)
    fields = {name: getattr(contact.contact, name) for name in contact.contact.__struct_fields__}
    text = type(contact.contact)(**{**fields, "addresses": (address,), "sequence": contact.contact.sequence + 1})
    return SignedContact(text, Signature(bytes([1]) * SIGNATURE_BYTES))


async def _leads(node: OverlayPeer, to: Node) -> bool:
    try:
        await node.endpoint.ping(Peer.of(to.contact), deadline_seconds=_CALL_SECONDS)
    except PeerError:
        return False
    return True


# --- 5.2 Sybil -------------------------------------------------------------------------------------------------------

_HONEST = 300
_SWARM = 3_000
_SWARM_NETWORK = "45.255.1.0/24"


def sybil_swarm(seed: int) -> Outcome:
    """Ten ids for every honest node, all in one /24, call everybody and name only each other."""
    city = City(seed, _HONEST)
    dice = Dice(seed).child("swarm")
    swarm = _strangers(dice, _SWARM, lambda _: _SWARM_NETWORK)
    rules = TableRules()
    most = 0
    for citizen in city.citizens:
        for node in swarm:
            if citizen.table.wants(node):
                citizen.table.seen(node, node.network, now_ms=START_MS)
        most = max(most, sum(node.network == _SWARM_NETWORK for node in citizen.table.neighbours()))
    city.add(swarm, Friends(swarm))
    found, taken = 0, 0
    for _ in range(200):
        searcher, wanted = (city.citizens[place] for place in dice.some(2, _HONEST))
        result = city.look(searcher, wanted.node.node_id)
        found += wanted.node in result
        taken = max(taken, sum(node.network == _SWARM_NETWORK for node in result))
    cap, among = rules.max_per_network, LookupRules().max_per_network
    detail = (
        f"{_SWARM:,} ids in one /24 beside {_HONEST} nodes in networks of their own: {most} places of a table at most, "
        f"{taken} of the 20 nodes that a lookup gives; {found} of 200 honest nodes were found."
    )
    caught = cap is not None and among is not None and most <= cap and taken <= among and found == 200
    return Outcome(caught, most, detail)


def _strangers(dice: Dice, count: int, network_of: Callable[[int], str]) -> list[Node]:
    """Nodes with ids drawn at random, as the hashes of keys are."""
    contact = sign_contact(node_key(dice), network=NETWORK, addresses=[], sequence=START_MS, issued_ms=START_MS)
    nodes = []
    for place in range(count):
        node_id = NodeId(dice(NODE_ID_BYTES))
        nodes.append(Node(contact, node_id, int.from_bytes(node_id, "big"), network_of(place)))
    return nodes


# --- 5.3 Eclipse -----------------------------------------------------------------------------------------------------

_GROUND = 20 * _HONEST
_AROUND = 60


def overlay_eclipse(seed: int) -> Outcome:
    """The sixty nearest of twenty keys for every honest node surround a victim, each in a network of its own."""
    city = City(seed, _HONEST)
    dice = Dice(seed).child("eclipse")
    victim = city.citizens[dice.whole(0, _HONEST - 1)]
    ground = _strangers(dice, _GROUND, lambda place: f"46.{place >> 8}.{place & 255}.0/24")
    nearest = heapq.nsmallest(_AROUND, ground, key=lambda node: node.number ^ victim.node.number)
    for citizen in city.citizens:
        for node in nearest:
            if citizen.table.wants(node):
                citizen.table.seen(node, node.network, now_ms=START_MS)
    city.add(nearest, Friends(nearest))
    around = sum(node in nearest for node in victim.table.siblings())
    wanted = [citizen for citizen in city.citizens if citizen is not victim]
    found = sum(citizen.node in city.look(victim, citizen.node.node_id) for citizen in wanted)
    by_id = sum(victim.node in city.look(citizen, victim.node.node_id) for citizen in wanted)
    # A farmer's contact lies at two keys, which are hashes: by itself, and in its announcement.
    keys = contact_key(victim.node.node_id), announcement_key(victim.node.node_id)
    reached = sum(any(_finds_a_keeper(city, citizen, key) for key in keys) for citizen in wanted)
    hidden = 1 - (found + reached) / (2 * len(wanted))
    detail = (
        f"{_GROUND:,} keys made; {around} of the victim's {len(victim.table.siblings())} siblings are the attacker's. "
        f"The victim found {found} of {len(wanted)} honest nodes; {reached} of them found nodes that keep its "
        f"contact or its announcement, whose keys are hashes and lie elsewhere. By its id alone {by_id} found it."
    )
    return Outcome(hidden <= 0.01, hidden, detail)


def _finds_a_keeper(city: City, citizen: Citizen, key: OverlayKey) -> bool:
    aim = int.from_bytes(key, "big")
    keepers = heapq.nsmallest(K, (each.node for each in city.citizens), key=lambda node: node.number ^ aim)
    return citizen.node in keepers or not set(keepers).isdisjoint(city.look(citizen, key))


# --- a flood of a table ----------------------------------------------------------------------------------------------

_FLOOD = 150


def table_flooder(seed: int) -> Outcome:
    """A hundred and fifty ids on one host call a node, each with a signed contact at an address where it is not."""

    async def main() -> Outcome:
        async with OverlayNet(8, seed=seed) as net:
            await net.join_all()
            victim = net.nodes[3]
            before = {contact.node_id for contact in victim.overlay.neighbours()}
            sent, begun = victim.overlay.requests_sent, asyncio.get_running_loop().time()
            carrier = net.network.carrier("66.6.6.6")
            for place in range(_FLOOD):
                dice = net.dice.child(f"flood {place}")
                key, clock = node_key(dice.child("key")), VirtualClock()
                # A stranger's address, in a network of its own: the victim is to call it.
                address = Address(AddressKind.DIRECT, f"47.{place}.0.1", PORT)
                flooder = Endpoint(key=key, network=NETWORK, clock=clock, entropy=dice, carrier=carrier)
                now_ms = clock.now_ms()
                flooder.contact = sign_contact(
                    key, network=NETWORK, addresses=[address], sequence=now_ms, issued_ms=now_ms
                )
                with suppress(PeerError):
                    await flooder.ping(victim.peer, deadline_seconds=_CALL_SECONDS)
                await flooder.close(grace_seconds=0)
            await asyncio.sleep(60)
            await victim.overlay.check()
            seconds = asyncio.get_running_loop().time() - begun
            after = {contact.node_id for contact in victim.overlay.neighbours()}
            calls = victim.overlay.requests_sent - sent
            allowance = victim.settings.probes
            bound = allowance.burst + allowance.per_second * seconds + len(before)
            places, lost = len(after - {node.node_id for node in net.nodes}), len(before - after)
            detail = (
                f"{_FLOOD} ids got {places} places, {lost} of {len(before)} honest contacts left the table; the victim "
                f"made {calls} calls in {seconds:.0f} s, {bound:.0f} were allowed."
            )
            return Outcome(not places and not lost and calls <= bound, places + lost, detail)

    return run(main(), within_seconds=86_400)


# --- yesterday's records ---------------------------------------------------------------------------------------------

_REPLAYERS = 6


def stale_records(seed: int) -> Outcome:
    """A quarter of all nodes give, and bring to everybody, an owner's first pointer instead of its newest."""

    async def main() -> Outcome:
        async with OverlayNet(_NODES, seed=seed) as net:
            await net.join_all()
            owner, replayers = net.nodes[1], net.nodes[-_REPLAYERS:]
            first, newest = (_pointer(owner, sequence) for sequence in (1, 5))
            await owner.overlay.store(first)

            async def answer_with_first(exchange: Exchange, payload: bytes) -> None:
                decode(FindValue, payload)
                await exchange.reply(encode(ValueReply((first,), ())))

            for replayer in replayers:
                replayer.endpoint.handle(OverlayMethod.FIND_VALUE, answer_with_first)
            holders = await owner.overlay.store(newest)
            honest = [node for node in net.living if node not in replayers]
            replaced = sum([await _offer(replayers[0], node, first) for node in honest])
            stale = 0
            for reader in honest:
                read = await reader.overlay.find_value(newest.key)
                stale += read != (newest,)
            detail = (
                f"{holders} nodes held the newest; {replaced} of {len(honest)} honest ones, which did not, took the "
                f"first when it was brought; {stale} of {len(honest)} readers were given anything but the newest."
            )
            return Outcome(not stale, stale, detail)

    return run(main(), within_seconds=86_400)


def _pointer(owner: OverlayPeer, sequence: int) -> SignedRecord:
    return sign_record(
        owner.key,
        network=NETWORK,
        kind=RecordKind.POINTER,
        body=b"sealed, number %d" % sequence,
        sequence=sequence,
        issued_ms=owner.clock.now_ms(),
    )


ATTACKS: Sequence[Attack] = (
    Attack(
        name="id-thief",
        paper="5.1",
        goal="have nodes that look for another's id find oneself, or keep a record in its name",
        bound="no lookup and no table leads to the thief, no record is kept",
        gain_unit="nodes deceived",
        stops="contacts and records are signed and numbered, and who is called must prove the id",
        run=id_thief,
    ),
    Attack(
        name="sybil-swarm",
        paper="5.2",
        goal="fill tables and surround whatever is looked for with ids of one network",
        bound="10 places of a table, 3 of the 20 nodes of a lookup, and every honest node is found",
        gain_unit="places of a table",
        stops="places per /24, /48 or domain in bucket, table, sibling list and result, by where a node was reached",
        run=sybil_swarm,
    ),
    Attack(
        name="overlay-eclipse",
        paper="5.3",
        goal="cut a node off by owning the ids nearest to it, with networks without number",
        bound="at most 1 % of lookups fail: its own of honest nodes, others' of keepers of its contact or announcement",
        gain_unit="share of lookups that failed",
        stops="old contacts are not displaced, four disjoint paths, what they know is put together at the end",
        run=overlay_eclipse,
    ),
    Attack(
        name="table-flooder",
        paper="",
        goal="fill a node's table with ids that are nowhere, and have it call strangers",
        bound="no place, no honest contact lost, and no more calls than the allowance for strangers",
        gain_unit="places",
        stops="a contact enters once it answered at its own address; calls to strangers' addresses are rationed",
        run=table_flooder,
    ),
    Attack(
        name="stale-records",
        paper="",
        goal="have readers given an older record than its owner's newest",
        bound="no reader is, with a quarter of all nodes replaying",
        gain_unit="readers deceived",
        stops="holders refuse older sequences, and a lookup takes the newest that any of the nearest 20 has",
        run=stale_records,
    ),
)
