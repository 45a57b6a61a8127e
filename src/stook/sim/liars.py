"""The cast of the audits: farmers that do not hold what they signed for, and what they say when they are asked.

Each answers AUDIT with code of its own and is the real farmer in all else. What it threw away it never gives back; what
it saves is what an attack gains (`docs/attacks.md`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from blake3 import blake3

from stook.audits.challenge import Ask, Challenge, pages_of
from stook.audits.messages import Audit, AuditMethod, AuditReply
from stook.audits.proof import AnswerKind, Item, SignedAnswer, UnitProof, sign_answer, unit_bytes
from stook.codec import decode, encode
from stook.contracts.grant import SignedGrant
from stook.contracts.loss import LossDeclaration, SignedLoss
from stook.contracts.messages import Consign, Method, Retrieve
from stook.errors import ReasonCode, RefusedError, StookError
from stook.ids import ShardRoot
from stook.merkle import merkle_paths, split_leaves, unit_count
from stook.sim.adversary import Adversary, Role
from stook.sim.factories import NETWORK
from stook.storage.ports import ShardStore
from stook.wire.endpoint import Endpoint, Exchange, Handler, Peer

HOUR_SECONDS = 3600.0
ACQUAINTANCES = 8
"""Whom a liar asks for help, at most: more would take longer than the auditor waits."""


class Liar(Adversary):
    """Proves what it has; subclasses say what it has not, and what it says instead.

    What is thrown away stays on the simulated disk, so that the farmer's own scrub does not find it and confess: it
    is only never read again. `saved_bytes` is what the liar would have saved.
    """

    def __init__(self, role: Role) -> None:
        super().__init__(role)
        self.disk: ShardStore
        self.dropped: set[tuple[ShardRoot, int]] = set()

    # --- what it has -------------------------------------------------------------------------------------------------

    def shards(self, honest: ShardStore) -> ShardStore:
        """The honest store; the liar remembers it."""
        self.disk = honest
        return honest

    def has(self, root: ShardRoot, unit: int) -> bool:
        """Whether it still has a unit."""
        return (root, unit) not in self.dropped

    def has_all(self, ask: Ask) -> bool:
        """Whether it has everything that it is asked for."""
        return all(self.has(ask.shard_root, unit) for unit in ask.units)

    @property
    def saved_bytes(self) -> int:
        """Bytes it is paid for and does not keep."""
        return sum(
            unit_bytes(shard.size_bytes, unit)
            for shard in self.disk.scan()
            for unit in range(unit_count(shard.size_bytes))
            if not self.has(shard.root, unit)
        )

    # --- what it says ------------------------------------------------------------------------------------------------

    def handler(self, method: str, honest: Handler) -> Handler:
        """AUDIT by its own lights; RETRIEVE refused where something is missing."""
        match method:
            case AuditMethod.AUDIT:
                return self._audit
            case Method.RETRIEVE:
                return self._retrieving(honest)
        return honest

    async def answer(self, challenge: Challenge, page: int, asks: Sequence[Ask]) -> SignedAnswer:
        """What it says to one page; may wait for ever."""
        items = tuple(self.item(ask) for ask in asks)
        return sign_answer(challenge, page, items, self.role.key, self.role.clock.now_ms())

    def item(self, ask: Ask) -> Item:
        """What it says about one shard."""
        leaves = split_leaves(self.disk.read_leaves(ask.shard_root))
        paths = merkle_paths(leaves, ask.units)
        units = [self.unit(ask, unit) for unit in ask.units]
        return Item(
            AnswerKind.PROOF,
            tuple(UnitProof(data, tuple(path)) for data, path in zip(units, paths, strict=True)),
            None,
            None,
        )

    def unit(self, ask: Ask, unit: int) -> bytes:
        """The unit; where it is missing, zeros with the true path, which it can make from the leaf list it kept."""
        if self.has(ask.shard_root, unit):
            return self.read(ask.shard_root, unit, ask.size_bytes)
        self.deeds += 1
        return bytes(unit_bytes(ask.size_bytes, unit))

    def read(self, root: ShardRoot, unit: int, size_bytes: int) -> bytes:
        """A unit as it stands on the disk."""
        into = bytearray(unit_bytes(size_bytes, unit))
        self.disk.read_units(root, unit, memoryview(into))
        return bytes(into)

    async def _audit(self, exchange: Exchange, payload: bytes) -> None:
        request = decode(Audit, payload)
        challenge = request.challenge.challenge
        asks = [challenge.asks[at] for at in pages_of(challenge)[request.page]]
        await exchange.reply(encode(AuditReply(await self.answer(challenge, request.page, asks))))

    def _retrieving(self, honest: Handler) -> Handler:
        async def serve(exchange: Exchange, payload: bytes) -> None:
            request = decode(Retrieve, payload)
            root = request.grant.grant.shard_root
            if not all(self.has(root, unit) for unit in range(request.first_unit, request.end_unit)):
                raise RefusedError(ReasonCode.SHARD_ABSENT, "not today")
            await honest(exchange, payload)

        return serve


class ForgetsSome(Liar):
    """Throws away a share of each shard as soon as it has the receipt, keeps the leaf list, and bluffs."""

    def __init__(self, role: Role, share: float = 0.1) -> None:
        super().__init__(role)
        self._share = share

    def has(self, root: ShardRoot, unit: int) -> bool:
        """A fixed share of all units is missing, each as likely."""
        word = blake3(root + unit.to_bytes(4, "big"), key=self.role.key.public_key[1:]).digest(length=8)
        return int.from_bytes(word, "big") >= self._share * 2**64


class ConfessesWhenCaught(ForgetsSome):
    """The same, but says so as soon as it is asked for what is missing, and not before."""

    def item(self, ask: Ask) -> Item:
        """A declaration of loss, truly signed, made this moment."""
        if self.has_all(ask):
            return super().item(ask)
        self.deeds += 1
        loss = LossDeclaration(ask.contract_id, ask.shard_root, self.role.clock.now_ms(), self.role.key.public_key)
        return Item(AnswerKind.LOST, (), None, SignedLoss(loss, self.role.key.sign(loss.digest)))


class DeletesWhatWasAsked(Liar):
    """Keeps everything until it is asked, and throws away what it has just proved: who asks twice?"""

    async def answer(self, challenge: Challenge, page: int, asks: Sequence[Ask]) -> SignedAnswer:
        """The truth, once."""
        said = await super().answer(challenge, page, asks)
        self.dropped.update((ask.shard_root, unit) for ask in asks for unit in ask.units)
        return said


class DeniesContracts(ForgetsSome):
    """Says that it never heard of a shard of which it misses a part."""

    def item(self, ask: Ask) -> Item:
        """UNKNOWN."""
        if self.has_all(ask):
            return super().item(ask)
        self.deeds += 1
        return Item(AnswerKind.UNKNOWN, (), None, None)


class MuteWhenCaught(ForgetsSome):
    """Answers everything but the questions that would show what is missing."""

    async def answer(self, challenge: Challenge, page: int, asks: Sequence[Ask]) -> SignedAnswer:
        """Nothing, where it would have to lie."""
        if not all(self.has_all(ask) for ask in asks):
            self.deeds += 1
            await asyncio.get_running_loop().create_future()
        return await super().answer(challenge, page, asks)


class GoesDark(ForgetsSome):
    """Pulls its own plug when it is asked for what is missing, and is back an hour later as if nothing had been."""

    async def answer(self, challenge: Challenge, page: int, asks: Sequence[Ask]) -> SignedAnswer:
        """Dark, where it would have to lie."""
        if not all(self.has_all(ask) for ask in asks):
            self.deeds += 1
            network, host = self.role.network, self.role.host
            network.unplug(host)
            asyncio.get_running_loop().call_later(HOUR_SECONDS, network.plug_in, host)
            await asyncio.get_running_loop().create_future()
        return await super().answer(challenge, page, asks)


# --- proofs that are not of the shard --------------------------------------------------------------------------------


class ShowsInnerNodes(ForgetsSome):
    """Answers with an inner node of the tree in place of a unit: it kept the hashes (white paper 5.7)."""

    def item(self, ask: Ask) -> Item:
        """Two leaves side by side, which hash to their parent in a tree without tags, and the path from there."""
        if self.has_all(ask):
            return super().item(ask)
        self.deeds += 1
        leaves = split_leaves(self.disk.read_leaves(ask.shard_root))
        proofs = []
        for unit, path in zip(ask.units, merkle_paths(leaves, ask.units), strict=True):
            pair = leaves[unit & ~1 : (unit & ~1) + 2]
            proofs.append(UnitProof(b"".join(pair), tuple(path[1:])))
        return Item(AnswerKind.PROOF, tuple(proofs), None, None)


class ShowsAnotherShard(ForgetsSome):
    """Answers for a shard that it misses with units and paths of one that it has."""

    def item(self, ask: Ask) -> Item:
        """True units with true paths, of another shard of the same size where there is one."""
        if self.has_all(ask):
            return super().item(ask)
        self.deeds += 1
        others = [shard for shard in self.disk.scan() if shard.root != ask.shard_root]
        if not others:
            return super().item(ask)
        other = min(others, key=lambda shard: (shard.size_bytes != ask.size_bytes, shard.root))
        leaves = split_leaves(self.disk.read_leaves(other.root))
        at = [unit % len(leaves) for unit in ask.units]
        units = [self.read(other.root, unit, other.size_bytes) for unit in at]
        paths = merkle_paths(leaves, at)
        return Item(
            AnswerKind.PROOF,
            tuple(UnitProof(data, tuple(path)) for data, path in zip(units, paths, strict=True)),
            None,
            None,
        )


# --- accomplices -----------------------------------------------------------------------------------------------------


@dataclass
class Ring:
    """What accomplices share: who they are, what they know of each other's shards, whom else they know."""

    members: list[Liar] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    refusals: list[ReasonCode] = field(default_factory=list)
    """What others said when a member asked them for bytes."""
    fetched: int = 0
    """How often they gave some."""


class ShowsAnothersAnswer(Liar):
    """Keeps nothing, and hands in the answers that an accomplice signed to its own audits."""

    def __init__(self, role: Role, ring: Ring) -> None:
        super().__init__(role)
        self._ring = ring

    def has(self, root: ShardRoot, unit: int) -> bool:
        """Nothing."""
        return False

    async def answer(self, challenge: Challenge, page: int, asks: Sequence[Ask]) -> SignedAnswer:
        """The last page that the accomplice signed, byte for byte; silence while there is none."""
        self.deeds += 1
        lent = [member.last for member in self._ring.members if isinstance(member, LendsAnswers) and member.last]
        if not lent:
            await asyncio.get_running_loop().create_future()
        said: SignedAnswer = lent[0]
        return said


class LendsAnswers(Liar):
    """Honest itself; lets an accomplice have a copy of every answer."""

    def __init__(self, role: Role, ring: Ring) -> None:
        super().__init__(role)
        self.last: SignedAnswer | None = None
        ring.members.append(self)

    async def answer(self, challenge: Challenge, page: int, asks: Sequence[Ask]) -> SignedAnswer:
        """The truth."""
        self.last = await super().answer(challenge, page, asks)
        return self.last


class FetchesElsewhere(Liar):
    """Keeps no shard; when it is asked, it goes to every farmer it knows and asks for bytes that would do.

    It uses the grants it was shown, its own key, and a true session. What it gets it would answer with.
    """

    def __init__(self, role: Role, ring: Ring) -> None:
        super().__init__(role)
        self._ring = ring
        self._grants: dict[ShardRoot, SignedGrant] = {}

    def has(self, root: ShardRoot, unit: int) -> bool:
        """Nothing."""
        return False

    def handler(self, method: str, honest: Handler) -> Handler:
        """Remembers every grant that passes by."""
        bent = super().handler(method, honest)
        if method not in (Method.CONSIGN, Method.RETRIEVE):
            return bent

        async def serve(exchange: Exchange, payload: bytes) -> None:
            grant = decode(Consign, payload).grant if method == Method.CONSIGN else decode(Retrieve, payload).grant
            self._grants[grant.grant.shard_root] = grant
            await bent(exchange, payload)

        return serve

    async def answer(self, challenge: Challenge, page: int, asks: Sequence[Ask]) -> SignedAnswer:
        """Whatever can be fetched, else noise."""
        await self._fetch(asks[0])
        return await super().answer(challenge, page, asks)

    async def _fetch(self, ask: Ask) -> None:
        grant = self._grants.get(ask.shard_root)
        if grant is None:
            return
        endpoint = Endpoint(
            key=self.role.key,
            network=NETWORK,
            clock=self.role.clock,
            entropy=self.role.dice,
            carrier=self.role.network.carrier(self.role.host),
        )
        request = encode(Retrieve(grant, ask.units[0], ask.units[0] + 1))
        try:
            for peer in self._ring.peers:
                if peer.node_id == self.role.key.node_id:
                    continue
                try:
                    await endpoint.call(peer, Method.RETRIEVE, request, deadline_seconds=10)
                    self._ring.fetched += 1
                except RefusedError as error:
                    self._ring.refusals.append(error.code)
                except StookError:
                    continue
        finally:
            await endpoint.close(grace_seconds=0)


class Colludes(Liar):
    """One of a ring of which some keep their shards, and all claim to.

    Who keeps nothing makes what it is asked for out of the shards that its friends have, as the erasure code would, if
    only the masks were not.
    """

    def __init__(self, role: Role, ring: Ring, number: int, *, keeps: bool) -> None:
        super().__init__(role)
        self._ring = ring
        self._number = number
        self._keeps = keeps
        ring.members.append(self)

    def has(self, root: ShardRoot, unit: int) -> bool:
        """Everything, or nothing."""
        return self._keeps

    def unit(self, ask: Ask, unit: int) -> bytes:
        """Where it has nothing: the sum of what its friends have at the same place, the simplest code there is."""
        if self._keeps:
            return super().unit(ask, unit)
        self.deeds += 1
        total = 0
        for member in self._ring.members:
            theirs = [shard for shard in member.disk.scan() if shard.size_bytes == ask.size_bytes]
            if member.has(ask.shard_root, unit) and theirs:
                total ^= int.from_bytes(member.read(theirs[0].root, unit, ask.size_bytes), "big")
        return total.to_bytes(unit_bytes(ask.size_bytes, unit), "big")
