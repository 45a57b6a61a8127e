"""An agent audits a simulated network: liars are named, the dead and the honest are not."""

from __future__ import annotations

import pytest

from sim_objects import put_all, some_objects
from stook.audits.containment import Silence
from stook.audits.evidence import Comparison, verify_receipt_file
from stook.audits.messages import AuditMethod
from stook.audits.score import Crime
from stook.contracts.verdict import Verdict
from stook.renter.audit_rules import AuditRules
from stook.shards.geometry import Policy
from stook.sim.adversaries import Forgets
from stook.sim.adversary import Adversary
from stook.sim.factories import agent_options
from stook.sim.loop import run
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import PlacementState
from stook.wire.endpoint import Exchange, Handler

POLICY = Policy(k=3, r=5, o=7, n=8)
OPTIONS = agent_options(POLICY, audits=AuditRules())
HOUR = 3600.0
DAY = 24 * HOUR
VILLAIN = 4
SIZES = (200_000, 500_000)


class Mute(Adversary):
    """Answers everything but audits."""

    def handler(self, method: str, honest: Handler) -> Handler:
        """AUDIT into nowhere."""
        if method != AuditMethod.AUDIT:
            return honest

        async def serve(exchange: Exchange, payload: bytes) -> None:
            self.deeds += 1
            await exchange.receive_into(memoryview(bytearray(1)))

        return serve


def silence(net: Testnet, number: int) -> Silence:
    return net.renter.store.dossier(net.farmers[number].node_id).silence.state


def crime(net: Testnet, number: int) -> Crime | None:
    return net.renter.store.dossier(net.farmers[number].node_id).score.crime


async def stored(net: Testnet) -> None:
    await put_all(net, some_objects(net, SIZES))
    await net.renter.client.settle()


async def audit_for(net: Testnet, seconds: float, every: float = 600.0) -> None:
    """The audit chore for so long."""
    auditor = net.renter.agent.auditor
    for _ in range(int(seconds / every)):
        await auditor.audit_due()
        await net.pass_seconds(every)


@pytest.mark.parametrize("seed", [1, 2])
def test_honest_farmers_pass_and_are_known_better_for_it(seed: int) -> None:
    async def main() -> None:
        async with Testnet(farmers=8, seed=seed, options=OPTIONS) as net:
            await stored(net)
            await audit_for(net, 2 * HOUR)
            store = net.renter.store
            assert all(each.new_shards == 0 for each in store.totals())
            await net.renter.agent.auditor.audit_all()
            rounds = store.receipts(None, 999)
            assert {each.outcome for each in rounds} == {Verdict.PASSED}
            assert all(each.sent for each in rounds)
            assert store.open_challenges() == []
            for each in rounds:
                assert verify_receipt_file(each.file).sound
            held = {farmer.number for farmer in net.farmers if farmer.contracts.audits.rounds(99)}
            assert held == {farmer.number for farmer in net.farmers if farmer.stored_bytes}
            for each in store.dossiers():
                assert (each.score.crime, each.silence.state) == (None, Silence.CLEAR)

    run(main(), within_seconds=3 * HOUR)


def test_a_farmer_that_forgets_is_named_with_evidence_and_given_nothing_more() -> None:
    async def main() -> None:
        async with Testnet(farmers=8, seed=3, options=OPTIONS, cast={VILLAIN: Forgets}) as net:
            await stored(net)
            await audit_for(net, 2 * HOUR)
            assert crime(net, VILLAIN) is Crime.FALSE_PROOF
            assert [number for number in range(8) if crime(net, number)] == [VILLAIN]
            farmer = net.farmers[VILLAIN].node_id
            (kept,) = [each for each in net.renter.store.receipts(farmer, 9) if each.outcome is Verdict.FAILED]
            report = verify_receipt_file(kept.file)
            assert report.sound
            assert report.drawn
            assert {each.comparison for each in report.rejudged} == {Comparison.AGREES}
            assert net.renter.store.stored_at(farmer) == []
            assert net.renter.agent.book.candidate(farmer).barred is not None

    run(main(), within_seconds=3 * HOUR)


def test_a_farmer_that_is_down_is_offline_and_then_gone_and_no_liar() -> None:
    async def main() -> None:
        async with Testnet(farmers=8, seed=4, options=OPTIONS) as net:
            await stored(net)
            await audit_for(net, 2 * HOUR)
            await net.kill(VILLAIN)
            await audit_for(net, 6 * DAY, HOUR)
            assert silence(net, VILLAIN) is Silence.OFFLINE
            await audit_for(net, 4 * DAY, HOUR)
            assert silence(net, VILLAIN) is Silence.GONE
            assert crime(net, VILLAIN) is None
            dossier = net.renter.store.dossier(net.farmers[VILLAIN].node_id)
            assert dossier.score.losses.mass > 0.9
            assert net.renter.store.stored_at(dossier.farmer) == []
            assert [number for number in range(8) if silence(net, number) is not Silence.CLEAR] == [VILLAIN]
            # Back again, it has its name and, once it proved them, its shards.
            await net.restart(VILLAIN)
            await audit_for(net, 3 * HOUR)
            assert silence(net, VILLAIN) is Silence.CLEAR
            held = net.renter.store.stored_at(dossier.farmer)
            assert held
            assert all(each.proved_ms for each in held)

    run(main(), within_seconds=20 * DAY)


def test_a_farmer_that_is_mute_is_convicted_within_days() -> None:
    async def main() -> None:
        async with Testnet(farmers=8, seed=5, options=OPTIONS, cast={VILLAIN: Mute}) as net:
            await stored(net)
            await audit_for(net, 2 * HOUR)
            assert silence(net, VILLAIN) is Silence.CONTAINED
            await audit_for(net, 4 * DAY, 1800.0)
            assert silence(net, VILLAIN) is Silence.CONDEMNED
            assert crime(net, VILLAIN) is Crime.MUTE
            assert [number for number in range(8) if crime(net, number)] == [VILLAIN]

    run(main(), within_seconds=10 * DAY)


def test_an_honest_loss_keeps_its_name() -> None:
    async def main() -> None:
        async with Testnet(farmers=8, seed=6, options=OPTIONS) as net:
            await stored(net)
            await audit_for(net, 2 * HOUR)
            loser = net.farmers[VILLAIN]
            held = net.renter.store.stored_at(loser.node_id)
            for each in held:
                loser.disk.erase(each.root)
            await loser.farmer.chores["scrub"].step()
            await audit_for(net, 2 * DAY, HOUR)
            assert crime(net, VILLAIN) is None
            dossier = net.renter.store.dossier(loser.node_id)
            assert dossier.silence.state is Silence.CLEAR
            assert dossier.score.losses.mass > 0.9
            states = {net.renter.store.placement(each.contract_id).state for each in held}  # type: ignore[union-attr]
            assert states == {PlacementState.LOST}
            notes = net.renter.store.noted_losses([each.contract_id for each in held])
            assert len(notes) == len(held)
            assert not any(noted.note.note.asked for noted in notes.values())

    run(main(), within_seconds=5 * DAY)


def test_a_farmer_that_has_a_session_declares_by_itself() -> None:
    async def main() -> None:
        async with Testnet(farmers=8, seed=9, options=OPTIONS) as net:
            await stored(net)
            await audit_for(net, 2 * HOUR)
            loser = net.farmers[VILLAIN]
            (held, *others) = net.renter.store.stored_at(loser.node_id)
            loser.disk.erase(held.root)
            await loser.farmer.chores["scrub"].step()
            await net.renter.agent.refresh()  # a session
            await loser.farmer.chores["declare"].step()
            noted = net.renter.store.noted_losses([held.contract_id])[held.contract_id]
            assert noted.note.note.asked == b""
            assert [each.contract_id for each in net.renter.store.stored_at(loser.node_id)] == [
                each.contract_id for each in others
            ]

    run(main(), within_seconds=DAY)


def test_when_our_own_line_is_down_nobody_is_blamed() -> None:
    async def main() -> None:
        async with Testnet(farmers=8, seed=7, options=OPTIONS) as net:
            await stored(net)
            await audit_for(net, 2 * HOUR)
            scores = {each.farmer: each.score.availability for each in net.renter.store.dossiers()}
            net.partition(range(8))
            await audit_for(net, 3 * DAY, HOUR)
            net.heal()
            await audit_for(net, 3 * HOUR)
            assert {silence(net, number) for number in range(8)} == {Silence.CLEAR}
            for each in net.renter.store.dossiers():
                assert each.score.availability.bad == scores[each.farmer].bad == 0
            assert net.renter.store.outages()

    run(main(), within_seconds=10 * DAY)
