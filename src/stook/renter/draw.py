"""What to ask a farmer now: an open question again, else a draw over what it holds. Nothing is sent from here."""

from __future__ import annotations

from functools import partial

from stook.audits.challenge import Parties, SignedChallenge, draw_challenge, repeat_challenge
from stook.audits.containment import Event
from stook.audits.holding import HeldShard, Holding
from stook.audits.schedule import AuditJob, JobKind
from stook.clock import Clock, Entropy, Offload
from stook.contracts.loss import NotedLoss
from stook.identity.keys import NodeKey
from stook.ids import NetworkId
from stook.renter.audit_rules import AuditRules
from stook.renter.verdicts import Judged
from stook.storage.agent_audit_ports import Dossier, OpenChallenge
from stook.storage.audit_records import read_question
from stook.storage.renter_ports import AgentStore, Placement, PlacementState


class Drawer:
    """The part of an `Auditor` that makes challenges."""

    def __init__(
        self,
        *,
        key: NodeKey,
        network: NetworkId,
        store: AgentStore,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        rules: AuditRules,
    ) -> None:
        self._key = key
        self._network = network
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._rules = rules

    async def draw(self, job: AuditJob, dossier: Dossier, left_open: OpenChallenge | None) -> Judged | None:
        """The challenge to send; when nothing is left of what was asked before, that counts as answered for."""
        farmer = job.node_id
        earlier: tuple[SignedChallenge, bool] | None = None
        if dossier.silence.question:
            question = read_question(dossier.silence.question)
            earlier = question.signed, question.first
        elif left_open is not None:
            earlier = left_open.signed, left_open.first
        if earlier is not None:
            return await self._draw_again(*earlier)
        held = await self._offload(partial(self._store.stored_at, farmer))
        now = self._clock.now_ms()
        first = job.kind is JobKind.FIRST
        lasting = [each for each in held if each.contract.terms.end_ms > now + 2 * self._rules.answer_within_ms]
        drawn_over = [each for each in lasting if not (first and each.proved_ms)]
        if not drawn_over:
            return None
        holding = Holding(held_shard(each) for each in drawn_over)
        signed = await self._offload(
            lambda: draw_challenge(
                holding,
                Parties(self._network, self._key.public_key, drawn_over[0].contract.terms.farmer_key),
                self._key,
                nonce=self._entropy(32),
                wanted=job.leaves,
                now_ms=now,
                answer_within_ms=self._rules.answer_within_ms,
            )
        )
        ids = tuple(each.contract_id for each in drawn_over)
        return Judged(signed, first, ids, signed, (), Event.SILENCE)

    async def _draw_again(self, asked: SignedChallenge, first: bool) -> Judged | None:
        """The same leaves under a new nonce, of shards whose contract is not over and that were not lost honestly."""
        now = self._clock.now_ms()
        names = [ask.contract_id for ask in asked.challenge.asks]
        placements = await self._offload(lambda: [self._store.placement(name) for name in names])
        noted = await self._offload(lambda: self._store.noted_losses(names))
        standing = {
            each.contract_id
            for each in placements
            if each is not None
            and each.state is not PlacementState.ERASED
            and each.contract.terms.end_ms > now + 2 * self._rules.answer_within_ms
            and not _is_honest(noted.get(each.contract_id))
        }
        if not standing:
            return None
        signed = repeat_challenge(
            asked.challenge,
            standing,
            self._key,
            nonce=self._entropy(32),
            now_ms=max(now, asked.challenge.sent_at_ms + 1),
            answer_within_ms=self._rules.answer_within_ms,
        )
        return Judged(signed, first, (), asked, (), Event.SILENCE)


def held_shard(placement: Placement) -> HeldShard:
    """A placement as a draw sees it."""
    terms = placement.contract.terms
    return HeldShard(placement.contract_id, terms.shard_root, terms.shard_size_bytes)


def _is_honest(noted: NotedLoss | None) -> bool:
    return noted is not None and not noted.note.note.asked
