"""Honest losses: a shard that is gone is declared, signed and durable, and told until its renter has noted it.

Scrub, reading back, proving and the start find losses; all of them come here. Who asks HEARTBEAT is told there
(`audit_desk`); a renter that is connected is called as well (`Confessor`). `docs/protocol/audits.md` has the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stook.audits.messages import AuditMethod, DeclareLoss, LossesNoted
from stook.codec import decode, encode
from stook.contracts.lifecycle import OVER, ContractState, Event, allows, apply
from stook.contracts.loss import NotedLoss, SignedLoss, SignedLossNote, declare_loss, is_noted
from stook.contracts.messages import MAX_BATCH
from stook.errors import CorruptionError, EnvironmentFault, PeerError, ReasonCode, RefusedError, StookError
from stook.farmer.parts import Parts
from stook.farmer.readback import is_damaged
from stook.identity.keys import node_id_of
from stook.ids import ContractId, PublicKey
from stook.storage.ports import HeldContract
from stook.wire.endpoint import Endpoint, Peer

DECLARE_DEADLINE_SECONDS = 20.0
PAUSE_AFTER_REFUSAL_SECONDS = 3600.0


async def declare_lost(parts: Parts, held: HeldContract, why: str) -> None:
    """Write down that a shard is gone, so that it is declared and never served. Hold the shard's gate."""
    if not allows(held.state, Event.LOSE):
        return
    lost = HeldContract(held.contract, apply(held.state, Event.LOSE))
    await parts.offload(lambda: _write_down(parts, lost))
    parts.lost.add(held.contract_id)
    terms = held.contract.terms
    parts.log.error(
        "shard lost",
        contract=held.contract_id.hex(),
        shard=terms.shard_root.hex(),
        bytes=terms.shard_size_bytes,
        why=why,
    )


async def confess(parts: Parts, held: HeldContract, why: str) -> RefusedError:
    """Declare a shard lost that could not be read, unless its contract went meanwhile; the refusal to raise."""
    deadline = parts.settings.transfers.transfer_deadline_seconds
    async with parts.gate.hold(held.contract.terms.shard_root, deadline_seconds=deadline):
        now = await parts.offload(lambda: parts.contracts.get(held.contract_id))
        if now is None or now.state in OVER:
            return RefusedError(ReasonCode.UNKNOWN_CONTRACT, "the contract was given up meanwhile")
        await declare_lost(parts, now, why)
    return RefusedError(ReasonCode.SHARD_LOST, "the shard is damaged here")


async def confess_unreadable(parts: Parts, held: HeldContract, fault: EnvironmentFault) -> StookError:
    """After a fault of the disk: a bad sector loses its shard, and the refusal says so; else the fault is to be raised.

    What looks sound again when it is read twice was a cable or a moment, and is no loss.
    """
    root = held.contract.terms.shard_root
    if isinstance(fault, CorruptionError) or await parts.offload(lambda: is_damaged(parts.shards, root)):
        return await confess(parts, held, str(fault))
    return fault


def _write_down(parts: Parts, lost: HeldContract) -> None:
    parts.contracts.put(lost)  # killed after this, the next start declares it
    declaration_of(parts, lost)


def declaration_of(parts: Parts, lost: HeldContract) -> SignedLoss:
    """The declaration about a contract in state LOST: the one on the book, else a new one. Blocks."""
    known = parts.contracts.audits.loss(lost.contract_id)
    if known is not None:
        return known
    made = declare_loss(lost.contract.terms, parts.key, parts.clock.now_ms())
    parts.contracts.audits.declare({lost.contract.terms.renter_key: [made]})
    return made


def declare_missing(parts: Parts, lost_ids: Iterable[ContractId]) -> int:
    """Declare, in one step, every lost contract that is not declared yet; how many. Blocks.

    So it is with losses found at the start, and with those of a farmer that was killed in between.
    """
    now_ms = parts.clock.now_ms()
    told: dict[PublicKey, list[SignedLoss]] = {}
    for contract_id in lost_ids:
        held = parts.contracts.get(contract_id)
        if held is None or held.state is not ContractState.LOST or parts.contracts.audits.loss(contract_id):
            continue
        terms = held.contract.terms
        told.setdefault(terms.renter_key, []).append(declare_loss(terms, parts.key, now_ms))
    if told:
        parts.contracts.audits.declare(told)
    return sum(map(len, told.values()))


def keep_notes(parts: Parts, renter_key: PublicKey, notes: Sequence[SignedLossNote]) -> int:
    """Keep a renter's notes of what was declared to it; how many were new. Blocks.

    Notes of anything else are passed over: nothing that a stranger says changes what is told to whom.
    """
    if not notes:
        return 0
    audits = parts.contracts.audits
    by_digest = {signed.note.loss: signed for signed in notes}
    noted = [
        NotedLoss(loss, by_digest[loss.loss.digest]) for loss in audits.unnoted_named(renter_key, tuple(by_digest))
    ]
    sound = [one for one in noted if is_noted(one, (renter_key,))]
    return audits.note(sound) if sound else 0


class Confessor:
    """Tells renters of their losses by DECLARE_LOSS, where a session is open. Nothing depends on it."""

    def __init__(self, parts: Parts, endpoint: Endpoint) -> None:
        self._parts = parts
        self._endpoint = endpoint
        self._not_before: dict[PublicKey, float] = {}

    async def tell(self) -> int:
        """Call every connected renter that has losses to note, a batch each; how many were noted."""
        parts = self._parts
        if not parts.lost:
            return 0
        now, here = parts.clock.monotonic(), set(self._endpoint.connected_peers)
        self._not_before = {key: until for key, until in self._not_before.items() if until > now}
        noted = 0
        for renter_key in await parts.offload(parts.contracts.audits.renters_to_tell):
            if node_id_of(renter_key) in here and renter_key not in self._not_before:
                noted += await self._tell_one(renter_key)
        return noted

    async def _tell_one(self, renter_key: PublicKey) -> int:
        parts = self._parts
        losses = await parts.offload(lambda: parts.contracts.audits.unnoted(renter_key, b"", MAX_BATCH))
        if not losses:
            return 0
        peer = Peer(node_id_of(renter_key), ())
        try:
            reply = await self._endpoint.call(
                peer,
                AuditMethod.DECLARE_LOSS,
                encode(DeclareLoss(tuple(losses))),
                deadline_seconds=DECLARE_DEADLINE_SECONDS,
            )
            notes = [note for note in decode(LossesNoted, reply).notes if note is not None]
        except PeerError as error:
            if not (isinstance(error, RefusedError) and error.code is ReasonCode.BUSY):
                self._not_before[renter_key] = parts.clock.monotonic() + PAUSE_AFTER_REFUSAL_SECONDS
            parts.log.info("renter not told of losses", renter=peer.node_id.hex(), why=str(error))
            return 0
        return await parts.offload(lambda: keep_notes(parts, renter_key, notes))
