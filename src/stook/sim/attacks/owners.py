"""Attacks by those who audit: denying what was proved, and making an honest farmer look like a liar.

What decides is a stranger with a receipt file and nothing else (`stook.audits.evidence`): no network, no trust in
either side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import structs

from stook.audits.challenge import Ask, SignedChallenge
from stook.audits.evidence import FILE_VERSION, Comparison, ReceiptFile, verify_receipt_file
from stook.audits.proof import AnswerKind, Came, SignedAnswer, body_digest, prove, verify
from stook.audits.receipt import ReceiptLine, Settled, SignedBatchReceipt, lines_root, settle
from stook.contracts.contract import Contract
from stook.contracts.loss import NotedLoss, SignedLoss, note_loss
from stook.contracts.verdict import Verdict
from stook.errors import MisbehaviourError, RefusedError
from stook.ids import ShardRoot
from stook.merkle import UNIT_BYTES
from stook.sim.attacks.outcome import Attack, Outcome
from stook.sim.hostile_renter import HostileRenter
from stook.sim.loop import run
from stook.sim.nodes import SimFarmer
from stook.sim.testnet import Testnet
from stook.storage.ports import ShardStore

_GUILTY = (Verdict.FAILED, Verdict.MALFORMED)
SHARD_BYTES = 4 * UNIT_BYTES


# --- the stranger ----------------------------------------------------------------------------------------------------


def convicts(file: ReceiptFile) -> bool:
    """Whether a stranger who has this file takes the farmer for a liar: some verdict against it that evidence bears."""
    try:
        report = verify_receipt_file(file)
    except MisbehaviourError:
        return False  # a file that contradicts itself proves nothing against anybody but its maker
    return any(
        one.found in _GUILTY and one.comparison in (Comparison.AGREES, Comparison.UNCOMPARED) for one in report.rejudged
    )


def acquits(file: ReceiptFile) -> bool:
    """Whether the file shows that every shard asked about was proved, whatever its receipt says."""
    report = verify_receipt_file(file)
    return bool(report.rejudged) and all(one.found is Verdict.PASSED for one in report.rejudged)


def _file(
    signed: SignedChallenge,
    answers: Sequence[SignedAnswer],
    settled: Settled | None = None,
    losses: Sequence[NotedLoss] = (),
) -> ReceiptFile:
    return ReceiptFile(
        version=FILE_VERSION,
        receipt=None if settled is None else settled.signed,
        lines=() if settled is None else settled.lines,
        challenge=signed,
        answers=tuple(answers),
        losses=tuple(losses),
        holding=b"",
        stored=(),
    )


@dataclass(frozen=True, slots=True)
class _DiskKeeper:
    """`stook.audits.proof.Keeper` over a farmer's disk: to make answers again whose heads were kept."""

    disk: ShardStore

    def standing(self, ask: Ask) -> AnswerKind | SignedLoss:
        return AnswerKind.PROOF

    def read_leaves(self, root: ShardRoot) -> bytes:
        return self.disk.read_leaves(root)

    def read_units(self, root: ShardRoot, first_unit: int, into: memoryview) -> int:
        return self.disk.read_units(root, first_unit, into)

    def salted_leaves(self, ask: Ask) -> Sequence[bytes]:
        return ()

    def lose(self, ask: Ask) -> SignedLoss:
        raise LookupError("the shard is gone, and with it the answer")


def _made_again(farmer: SimFarmer, signed: SignedChallenge) -> list[SignedAnswer]:
    """The farmer's own evidence, from nothing but what it kept: its signed heads, and its shards."""
    kept = farmer.contracts.audits.round(signed.challenge.digest)
    answers = []
    for head in () if kept is None else kept.heads:
        items = prove(signed.challenge, head.head.page, _DiskKeeper(farmer.disk))
        if body_digest(items) == head.head.body:
            answers.append(SignedAnswer(head.head, head.signature, items))
    return answers


def _forged(renter: HostileRenter, settled: Settled, verdict: Verdict) -> Settled:
    """The same receipt with another verdict in every line, truly signed by its auditor."""
    lines = tuple(structs.replace(line, verdict=verdict) for line in settled.lines)
    tally = Counter(line.verdict for line in lines)
    receipt = structs.replace(
        settled.signed.receipt,
        counts=tuple(tally[each] for each in Verdict),
        proved_bytes=0,
        lines_root=lines_root(lines),
    )
    return Settled(SignedBatchReceipt(receipt, renter.key.sign(receipt.digest)), lines)


# --- 5.5 Cheating owner ----------------------------------------------------------------------------------------------


def cheating_owner(seed: int) -> Outcome:
    """The owner gets valid proofs, and signs that they were false, or late, or nothing at all."""

    async def main() -> Outcome:
        denials = believed = shown = 0
        async with Testnet(farmers=4, seed=seed) as net:
            owner = HostileRenter(net.world, "owner")
            for farmer in net.farmers:
                contracts = [await owner.bring(farmer, owner.goods(SHARD_BYTES)) for _ in range(3)]
                for verdict in (None, Verdict.FAILED, Verdict.MALFORMED, Verdict.SILENT):
                    signed = owner.challenge(farmer, contracts, wanted=6)
                    answers = await owner.audit(farmer, signed)
                    settled = None
                    if verdict is not None:
                        true = settle(signed.challenge, answers, {}, owner.key, owner.clock.now_ms())
                        settled = _forged(owner, true, verdict)
                        await owner.hand_in(farmer, settled.signed, settled.lines)
                    theirs = _file(signed, [came.answer for came in answers.values()], settled)
                    mine = _file(signed, _made_again(farmer, signed), settled)
                    denials += 1
                    believed += convicts(theirs)
                    shown += acquits(mine)
            await owner.close()
        detail = (
            f"{denials} rounds proved and then denied: no receipt, FAILED, MALFORMED, SILENT. A stranger took the "
            f"farmer for a liar {believed} times; {shown} times the farmer's own file, made again from its heads and "
            "shards, showed that it had proved everything."
        )
        return Outcome(not believed and shown == denials, believed, detail, believed)

    return run(main(), within_seconds=86_400)


# --- Frame-up --------------------------------------------------------------------------------------------------------


def frame_up(seed: int) -> Outcome:
    """False reports against an honest farmer, by a stranger and by its own renter."""

    async def main() -> Outcome:
        async with Testnet(farmers=1, seed=seed) as net:
            (farmer,) = net.farmers
            owner, stranger = HostileRenter(net.world, "owner"), HostileRenter(net.world, "stranger")
            contracts = [await owner.bring(farmer, owner.goods(SHARD_BYTES)) for _ in range(3)]
            tried = {
                "asks for another's shards": await _asks_for_anothers(stranger, farmer, contracts),
                "asks about a contract that never was": await _asks_about_nothing(owner, farmer),
                "asks for another root under a true contract": await _asks_for_another_root(
                    owner, farmer, contracts[0]
                ),
                "signs FAILED without an answer": await _signs_without_answer(owner, farmer, contracts),
                "shows an old answer to a new challenge": await _shows_an_old_answer(owner, farmer, contracts),
                "calls an honest loss a lie": await _denies_a_loss(owner, farmer, contracts),
            }
            await owner.close()
            await stranger.close()
        believed = sum(tried.values())
        told = "; ".join(f"{what}: {'believed' if held else 'no'}" for what, held in tried.items())
        return Outcome(not believed, believed, f"{len(tried)} ways tried ({told}).", believed)

    return run(main(), within_seconds=86_400)


async def _asks_for_anothers(stranger: HostileRenter, farmer: SimFarmer, contracts: Sequence[Contract]) -> bool:
    signed = stranger.challenge(farmer, contracts, wanted=3)
    try:
        answers = await stranger.audit(farmer, signed)
    except RefusedError:
        answers = {}
    return convicts(_settled_file(stranger, signed, answers))


async def _asks_about_nothing(owner: HostileRenter, farmer: SimFarmer) -> bool:
    (terms,) = await owner.drafts(farmer, [owner.goods(SHARD_BYTES)])
    never = Contract(terms, owner.key.sign(terms.digest), owner.key.sign(terms.digest))
    signed = owner.challenge(farmer, [never], wanted=1)
    return convicts(_settled_file(owner, signed, await owner.audit(farmer, signed)))


async def _asks_for_another_root(owner: HostileRenter, farmer: SimFarmer, contract: Contract) -> bool:
    other = structs.replace(contract.terms, shard_root=owner.goods(SHARD_BYTES).root)
    signed = owner.challenge(farmer, [contract], wanted=1)
    (ask,) = signed.challenge.asks
    challenge = structs.replace(signed.challenge, asks=(structs.replace(ask, shard_root=other.shard_root),))
    bent = SignedChallenge(challenge, owner.key.sign(challenge.digest))
    try:
        answers = await owner.audit(farmer, bent)
    except RefusedError:
        answers = {}
    return convicts(_settled_file(owner, bent, answers))


async def _signs_without_answer(owner: HostileRenter, farmer: SimFarmer, contracts: Sequence[Contract]) -> bool:
    signed = owner.challenge(farmer, contracts, wanted=3)
    silent = settle(signed.challenge, {}, {}, owner.key, owner.clock.now_ms())
    return convicts(_file(signed, (), _forged(owner, silent, Verdict.FAILED)))


async def _shows_an_old_answer(owner: HostileRenter, farmer: SimFarmer, contracts: Sequence[Contract]) -> bool:
    old = owner.challenge(farmer, contracts, wanted=3)
    answers = await owner.audit(farmer, old)
    new = owner.challenge(farmer, contracts, wanted=3)
    return convicts(_file(new, [came.answer for came in answers.values()]))


async def _denies_a_loss(owner: HostileRenter, farmer: SimFarmer, contracts: Sequence[Contract]) -> bool:
    """A disk dies, the farmer says so at once, the owner notes it, asks all the same, and calls it a lie."""
    lost = contracts[-1]
    farmer.disk.erase(lost.terms.shard_root)
    await farmer.die()
    await farmer.start(chores=False)
    (loss,) = (await owner.heartbeat(farmer)).losses
    noted = note_loss(loss, owner.key, owner.clock.now_ms())
    await owner.heartbeat(farmer, noted.note)
    signed = owner.challenge(farmer, contracts, wanted=12)
    answers = await owner.audit(farmer, signed)
    true = settle(signed.challenge, answers, {lost.contract_id: noted}, owner.key, owner.clock.now_ms())
    lines = tuple(
        structs.replace(line, verdict=Verdict.FAILED) if line.verdict is Verdict.LOST else line for line in true.lines
    )
    false = _with_lines(owner, true, lines)
    # The farmer shows the note, which the owner signed and would rather forget.
    (note,) = farmer.contracts.audits.noted([lost.contract_id])
    return convicts(_file(signed, [came.answer for came in answers.values()], false, [note]))


def _with_lines(owner: HostileRenter, settled: Settled, lines: tuple[ReceiptLine, ...]) -> Settled:
    tally = Counter(line.verdict for line in lines)
    receipt = structs.replace(
        settled.signed.receipt, counts=tuple(tally[each] for each in Verdict), lines_root=lines_root(lines)
    )
    return Settled(SignedBatchReceipt(receipt, owner.key.sign(receipt.digest)), lines)


def _settled_file(auditor: HostileRenter, signed: SignedChallenge, answers: Mapping[int, Came]) -> ReceiptFile:
    """What an auditor can show: its receipt, as its own judgement made it, and what came."""
    findings = verify(signed.challenge, answers, {})
    settled = settle(signed.challenge, answers, {}, auditor.key, auditor.clock.now_ms(), findings=findings)
    return _file(signed, [came.answer for came in answers.values()], settled)


ATTACKS = (
    Attack(
        name="cheating-owner",
        paper="5.5",
        goal="deny valid proofs, so as not to pay and to spoil a name",
        bound="no stranger takes the farmer for a liar, and the farmer can show every proof",
        gain_unit="denials believed",
        stops="the farmer's answer is signed to the signed challenge and stands without a receipt",
        run=cheating_owner,
    ),
    Attack(
        name="frame-up",
        paper="",
        goal="have an honest farmer taken for a liar by false reports and impossible questions",
        bound="no stranger believes one of them",
        gain_unit="reports believed",
        stops="a verdict against a farmer needs the farmer's own signature, its storage receipt, and a loss's note",
        run=frame_up,
    ),
)
