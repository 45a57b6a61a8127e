"""Attacks on who is who: copied ids, many ids, and being surrounded by somebody else's."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import cast

from stook.audits.confidence import eclipse_chance
from stook.codec import decode, encode
from stook.contracts.messages import CapacityRequest, ContactsReply, Method
from stook.errors import PeerError, ReasonCode, StookError
from stook.identity.contact import Address, AddressKind
from stook.identity.envelope import Kind, ReplayWindow, open_envelope, seal
from stook.ids import MessageId, NodeId, SessionNonce
from stook.renter.planner import Candidate, Demand, choose, group_cap
from stook.shards.geometry import Policy
from stook.sim.adversary import Adversary, Around, Role
from stook.sim.attacks.outcome import Attack, Outcome
from stook.sim.dice import Dice
from stook.sim.factories import HOUR_SECONDS, NETWORK, agent_options, node_key
from stook.sim.hostile_renter import HostileRenter
from stook.sim.loop import START_MS, run
from stook.sim.nodes import PORT, SimRenter
from stook.sim.testnet import Testnet
from stook.wire.carrier import Connection, Receiver
from stook.wire.endpoint import Endpoint, Exchange, Handler, Peer

SEGMENTS = 400
POLICY = Policy.parse("10/14/20/30")


# --- 5.1 Spartacus ---------------------------------------------------------------------------------------------------


def spartacus(seed: int) -> Outcome:
    """Take another's id: claim it in the session, claim it in a message, and stand at its address."""

    async def main() -> Outcome:
        tried: Counter[str] = Counter()
        async with Testnet(farmers=3, seed=seed) as net:
            victim, caller = net.farmers[0], net.renter
            await victim.die()
            # Who has taken over the victim's address says in all seriousness that it is the victim.
            key = node_key(net.dice.child("thief"))
            key.node_id = victim.node_id
            thief = Endpoint(
                key=key,
                network=NETWORK,
                clock=caller.clock,
                entropy=net.dice.child("entropy"),
                carrier=net.network.carrier(victim.host),
            )
            await thief.listen(victim.host, PORT)
            try:
                await caller.endpoint.call(victim.peer, Method.CAPACITY, encode(CapacityRequest()), deadline_seconds=30)
            except StookError as error:
                tried[_code(error)] += 1
            else:
                tried["believed"] += 1
            await thief.close(grace_seconds=0)
        tried.update(_spartacus_messages(seed))
        believed = tried["believed"]
        said = ", ".join(f"{count} {code}" for code, count in sorted(tried.items()) if count)
        return Outcome(not believed, believed, f"{sum(tried.values())} ways tried: {said}.")

    return run(main(), within_seconds=3600)


def _spartacus_messages(seed: int) -> Counter[str]:
    """A message of the thief's under the victim's id, and the victim's own message after a byte was changed."""
    dice = Dice(seed).child("spartacus")
    victim, thief, reader = (node_key(dice.child(name)) for name in ("victim", "thief", "reader"))
    nonce = SessionNonce(dice(16))
    tried: Counter[str] = Counter()
    for signer, spoil in ((thief, False), (victim, True)):
        data = seal(
            key=signer,
            network=NETWORK,
            kind=Kind.REQUEST,
            method="CLAIM",
            message_id=MessageId(dice(16)),
            session=nonce,
            recipient=reader.node_id,
            sent_at_ms=START_MS,
            payload=b"a payload",
        ).data
        if spoil:
            data = data.replace(b"a payload", b"b payload")
        try:
            open_envelope(
                data,
                network=NETWORK,
                me=reader.node_id,
                session=nonce,
                claimed_sender=victim.node_id,
                now_ms=START_MS,
                replay=ReplayWindow(),
            )
        except PeerError as error:
            tried[_code(error)] += 1
        else:
            tried["believed"] += 1
    return tried


def _code(error: StookError) -> str:
    code = getattr(error, "code", None)
    return code.name if isinstance(code, ReasonCode) else type(error).__name__


# --- 5.2 Sybil, Google -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Crowd:
    """A market with a share of attackers, and how many segments they get k shards of."""

    honest: int
    sybils: int
    networks: int
    """Networks that the attacker has addresses in; every honest farmer is in one of its own."""

    def captured(self, dice: Dice, policy: Policy) -> float:
        """The share of segments of which the attacker holds k shards or more."""
        rest = [Candidate(NodeId(dice(20)), 1 << 40, networks=frozenset({f"h{at}"})) for at in range(self.honest)]
        mine = [
            Candidate(NodeId(dice(20)), 1 << 40, networks=frozenset({f"s{at % self.networks}"}))
            for at in range(self.sybils)
        ]
        sybils = {candidate.node_id for candidate in mine}
        demand = Demand(k=policy.k, count=policy.n, shard_bytes=1 << 20, duration_ms=1)
        captured = 0
        for _ in range(SEGMENTS):
            chosen = choose([*rest, *mine], demand, now_ms=START_MS, dice=dice).chosen
            captured += len(sybils & set(chosen)) >= policy.k
        return captured / SEGMENTS


def sybil(seed: int) -> Outcome:
    """Ten names for every honest farmer, all behind a few addresses: who gets k shards of a segment?"""
    crowd = _Crowd(honest=100, sybils=1000, networks=1)
    share = crowd.captured(Dice(seed).child("sybil"), POLICY)
    cap = group_cap(POLICY.k)
    detail = (
        f"1,000 names in one /24 beside 100 farmers in networks of their own: k shards of {share:.1%} of {SEGMENTS} "
        f"segments; {cap} of a segment's {POLICY.n} at most."
    )
    return Outcome(share == 0, share, detail)


def nation_state(seed: int) -> Outcome:
    """The same with a network for every name: nothing but scale helps. What share must the attacker own?

    A tenth is what must be borne; what larger shares get is told, not hidden.
    """
    dice = Dice(seed).child("nation-state")
    shares = {}
    for sybils in (10, 25, 50, 100, 300):
        crowd = _Crowd(honest=100, sybils=sybils, networks=sybils)
        shares[sybils / (100 + sybils)] = crowd.captured(dice.child(f"{sybils}"), POLICY)
    told = ", ".join(f"{own:.0%} of the farmers: {got:.1%}" for own, got in shares.items())
    gain = min(shares.items())[1]
    return Outcome(gain == 0, gain, f"Segments of which the attacker holds {POLICY.k} of {POLICY.n}: {told}.")


# --- 5.3 Eclipse -----------------------------------------------------------------------------------------------------

HOSTILE_SEEDS = 8
"""Farmers 0 to 7 are the attacker's; farmer 8 is an honest seed."""
FARMERS = 24


class NamesOnlyFriends(Adversary):
    """A seed that keeps quiet about everybody but its friends."""

    def __init__(self, role: Role, friends: set[NodeId]) -> None:
        super().__init__(role)
        self._friends = friends
        friends.add(role.key.node_id)

    def handler(self, method: str, honest: Handler) -> Handler:
        """CONTACTS, less all others."""
        if method != Method.CONTACTS:
            return honest
        friends = self._friends

        class Filters(Around):
            async def reply(self, payload: bytes) -> None:
                named = decode(ContactsReply, payload).announcements
                kept = tuple(signed for signed in named if signed.node_id in friends)
                await self._inner.reply(encode(ContactsReply(kept)))

        async def serve(exchange: Exchange, payload: bytes) -> None:
            await honest(cast(Exchange, Filters(exchange)), payload)
            self.deeds += 1

        return serve


def eclipse(seed: int) -> Outcome:
    """Seeds that name nobody but the attacker's farmers: whom does a renter see that knows one honest seed besides?"""

    async def main() -> Outcome:
        friends: set[NodeId] = set()
        cast_of = {number: partial(NamesOnlyFriends, friends=friends) for number in range(HOSTILE_SEEDS)}
        net = Testnet(farmers=FARMERS, seed=seed, cast=cast_of)
        seeds = [farmer.peer for farmer in net.farmers[: HOSTILE_SEEDS + 1]]
        for farmer in net.farmers:
            farmer.seeds = seeds
        seen = {}
        async with net:
            await net.step_chores("announce")
            for name, known in (("alone", seeds[:-1]), ("with one honest", seeds)):
                victim = SimRenter(net.world, f"victim {name}", agent_options(), net.farmers)
                victim.seeds = known
                await victim.start(chores=False)
                for _ in range(3):
                    await victim.agent.refresh()
                    await net.pass_seconds(HOUR_SECONDS)
                seen[name] = len({one.node_id for one in victim.agent.candidates()} - friends)
                await victim.stop()
        honest = FARMERS - HOSTILE_SEEDS
        hidden = 1 - seen["with one honest"] / honest
        detail = (
            f"Of {honest} honest farmers a renter with {HOSTILE_SEEDS} hostile seeds saw {seen['alone']}, with one "
            f"honest seed among them {seen['with one honest']}. By the paper's formula (6.2), 100 keys surround one of "
            f"8,000 nodes with chance {eclipse_chance(100, 8000):.1e}."
        )
        return Outcome(hidden == 0, hidden, detail)

    return run(main(), within_seconds=86_400)


# --- 5.3.1 Tunnel eclipse --------------------------------------------------------------------------------------------


class _Relay:
    """One side of a tunnel: what comes in goes out on the other side, and is read in passing."""

    def __init__(self, seen: bytearray) -> None:
        self.other: Connection | None = None
        self._buffer = bytearray(1 << 16)
        self._early: list[bytes] = []
        self._seen = seen

    def receive_buffer(self) -> memoryview:
        return memoryview(self._buffer)

    def received(self, size_bytes: int) -> None:
        data = bytes(self._buffer[:size_bytes])
        self._seen += data
        if self.other is None:
            self._early.append(data)
        else:
            self.other.write([data])

    def joined(self, other: Connection) -> None:
        self.other = other
        other.write(self._early)

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, reason: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


def tunnel_eclipse(seed: int) -> Outcome:
    """Sit between two nodes on two connections of one's own, as a tunneler can, and pass everything on."""

    async def main() -> Outcome:
        async with Testnet(farmers=2, seed=seed) as net:
            farmer, seen = net.farmers[0], bytearray()
            carrier = net.network.carrier("tunnel")
            tasks = []

            def accept(near: Connection) -> Receiver:
                inbound, outbound = _Relay(seen), _Relay(seen)
                outbound.other = near

                async def dial() -> None:
                    inbound.joined(await carrier.connect(farmer.host, PORT, lambda _: outbound))

                tasks.append(asyncio.ensure_future(dial()))
                return inbound

            await carrier.listen("tunnel", PORT, accept)
            through = Peer(farmer.node_id, (Address(AddressKind.DIRECT, "tunnel", PORT),))
            caller = HostileRenter(net.world, "client")
            try:
                await caller.endpoint.call(through, Method.CAPACITY, encode(CapacityRequest()), deadline_seconds=60)
            except StookError as error:
                code, answered = _code(error), 0
            else:
                code, answered = "nothing", 1
            await asyncio.gather(*tasks)
            await caller.close()
            detail = (
                f"The tunneler passed on {len(seen):,} bytes of hellos; the call ended with {code}, and {answered} "
                "requests were answered. Both hellos sign the channel that their own end sees."
            )
            return Outcome(not answered, answered, detail)

    return run(main(), within_seconds=3600)


ATTACKS = (
    Attack(
        name="spartacus",
        paper="5.1",
        goal="pass for another node by taking its id",
        bound="no message or session is believed",
        gain_unit="messages believed",
        stops="the id is the hash of the key, every hello and every message is signed whole and checked against it",
        run=spartacus,
    ),
    Attack(
        name="sybil",
        paper="5.2",
        goal="hold k shards of a segment under many names in one network",
        bound="of no segment k shards",
        gain_unit="share of segments captured",
        stops="fewer than k shards of a segment per operator, network (/24, /48) and failure domain",
        run=sybil,
    ),
    Attack(
        name="nation-state",
        paper="5.2.1",
        goal="the same with a network for every name",
        bound="of no segment 10 of 30 shards, for an attacker with a tenth of all farmers; beyond that it wins",
        gain_unit="share of segments captured",
        stops="nothing but scale: caps cannot see who owns a network. Named operators, a closed list, or k well above "
        "n times the attacker's share",
        run=nation_state,
    ),
    Attack(
        name="eclipse",
        paper="5.3",
        goal="hide honest farmers from a renter by owning its seeds",
        bound="one honest seed among them is enough to see every honest farmer",
        gain_unit="share of honest farmers hidden",
        stops="every seed is asked, announcements are signed; with hostile seeds alone it wins on this road",
        run=eclipse,
    ),
    Attack(
        name="tunnel-eclipse",
        paper="5.3.1",
        goal="read or answer what passes through a tunnel",
        bound="no request is answered through it",
        gain_unit="requests answered",
        stops="both hellos sign the channel: WRONG_CHANNEL",
        run=tunnel_eclipse,
    ),
)
