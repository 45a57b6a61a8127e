"""Farmers that cost an agent time, bytes or money without breaking a rule: what they get out of it is bounded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

from msgspec import structs

from sim_objects import assert_all_there, put_all, some_objects
from stook.audits.messages import AuditMethod, Heartbeat, HeartbeatReply
from stook.codec import decode, encode
from stook.contracts.loss import LossDeclaration, SignedLoss
from stook.contracts.messages import Method
from stook.errors import ReasonCode, RefusedError
from stook.farmer.admission import FarmerTerms
from stook.farmer.settings import FarmerSettings
from stook.ids import ContractId, ShardRoot
from stook.renter.audit_rules import AuditRules
from stook.shards.geometry import Policy
from stook.sim.adversary import Adversary, Around
from stook.sim.factories import agent_options
from stook.sim.loop import run
from stook.sim.testnet import Testnet
from stook.sim.watch import placements
from stook.storage.renter_ports import Placement, PlacementState
from stook.wire.endpoint import Exchange, Handler

DAY = 86_400.0
HOUR = 3_600.0
POLICY = Policy(k=3, r=5, o=6, n=6)


def stored(net: Testnet) -> list[Placement]:
    return [each for each in placements(net) if each.state is PlacementState.STORED]


class Dawdles(Adversary):
    """Refuses one method truly, but only just before anybody's patience ends."""

    method: str = Method.RENEW

    def handler(self, method: str, honest: Handler) -> Handler:
        if method != self.method:
            return honest

        async def serve(exchange: Exchange, payload: bytes) -> None:
            self.deeds += 1
            await asyncio.sleep(29)
            raise RefusedError(ReasonCode.BAD_TERMS, "after long thought")

        return serve


def test_who_dawdles_over_renewals_holds_up_nobody() -> None:
    async def main() -> None:
        net = Testnet(farmers=6, seed=6, options=agent_options(POLICY, contract_days=40), cast={0: Dawdles})
        async with net:
            for number in range(6):
                await put_all(net, {f"{number}": net.dice(90_000)})
            await net.pass_seconds(31 * DAY)
            await net.step_chores("announce", "refresh")
            begun = net.renter.clock.now_ms()
            await net.step_chores("renew")
            took = (net.renter.clock.now_ms() - begun) / 1000
            dawdler = net.farmers[0].node_id
            here = [each for each in stored(net) if each.farmer == dawdler]
            assert len(here) >= 6
            assert net.adversary(0).deeds == 3, "two answers in its minute, and the one that began within it"
            assert took < 100
            assert {each.contract.terms.revision for each in stored(net) if each.farmer != dawdler} == {1}

    run(main(), within_seconds=60 * DAY)


class MakesLossesUp(Adversary):
    """Tells losses of contracts that nobody has, page after page, each in the last moment."""

    def handler(self, method: str, honest: Handler) -> Handler:
        if method != AuditMethod.HEARTBEAT:
            return honest
        adversary = self

        async def serve(exchange: Exchange, payload: bytes) -> None:
            class Adds(Around):
                async def reply(self, data: bytes) -> None:
                    true = decode(HeartbeatReply, data)
                    after = decode(Heartbeat, payload).after
                    number = int.from_bytes(after or bytes(32), "big") + 1
                    name = ContractId(number.to_bytes(32, "big"))
                    key = adversary.role.key
                    said = LossDeclaration(name, ShardRoot(bytes(32)), true.now_ms, key.public_key)
                    made_up = SignedLoss(said, key.sign(said.digest))
                    adversary.deeds += 1
                    await asyncio.sleep(9)
                    await self._inner.reply(
                        encode(HeartbeatReply(true.now_ms, 1, 1, (made_up,), True, true.leaving_by_ms))
                    )

            await honest(cast(Exchange, Adds(exchange)), payload)

        return serve


def test_losses_without_end_do_not_keep_the_auditor_from_others() -> None:
    async def main() -> None:
        options = agent_options(POLICY, audits=AuditRules())
        async with Testnet(farmers=7, seed=7, options=options, cast={1: MakesLossesUp}) as net:
            objects = some_objects(net, (90_000, 200_000))
            await put_all(net, objects)
            await net.pass_seconds(2 * HOUR)
            begun = net.renter.clock.now_ms()
            report = await net.renter.agent.auditor.audit_all()
            took = (net.renter.clock.now_ms() - begun) / 1000
            assert report.passed >= 5
            assert net.adversary(1).deeds <= 16
            # Two heartbeats of 30 s, as before every challenge, and at most two minutes for its answer.
            assert took < 240
            assert not [each for each in net.renter.store.dossiers() if each.score.crime]

    run(main(), within_seconds=DAY)


def test_who_raises_prices_once_it_has_the_shards_is_left() -> None:
    async def main() -> None:
        async with Testnet(farmers=12, seed=8, options=agent_options(POLICY, contract_days=40)) as net:
            objects = some_objects(net, (90_000, 200_000))
            await put_all(net, objects)
            greedy = {each.farmer for each in stored(net)} - {net.farmers[0].node_id}
            greedy = set(sorted(greedy)[:2])
            for farmer in net.farmers:
                if farmer.node_id in greedy:
                    terms = farmer.settings.terms
                    price = 1000 * max(1, terms.storage_price_per_gib_hour)
                    farmer.settings = with_terms(farmer.settings, replace(terms, storage_price_per_gib_hour=price))
                    await net.restart(farmer.number)
            for _ in range(41):
                await net.pass_seconds(DAY)
                await net.step_chores("announce", "refresh", "audit", "renew", "repair", "cancel", "reap")
            assert not greedy & {each.farmer for each in stored(net) if each.contract.terms.revision}
            paid = {each.contract.terms.storage_price_per_gib_hour for each in stored(net)}
            assert max(paid) <= max(1, net.farmers[0].settings.terms.storage_price_per_gib_hour)
            await assert_all_there(net, objects)

    run(main(), within_seconds=60 * DAY)


def with_terms(settings: FarmerSettings, terms: FarmerTerms) -> FarmerSettings:
    return replace(settings, terms=terms)


def test_who_comes_and_goes_is_not_repaired_for_each_time() -> None:
    """Away for a day, back for a day: what was made for it in the first absence is still there in the second."""

    async def main() -> None:
        options = agent_options(Policy(k=3, r=6, o=6, n=6), spares=0, audits=AuditRules())
        options = replace(options, care=replace(options.care, surplus_after_ms=3 * 86_400_000))
        async with Testnet(farmers=9, seed=9, options=options) as net:
            objects = {f"{number}": net.dice(90_000) for number in range(3)}
            for name, data in objects.items():
                await put_all(net, {name: data})
            await net.renter.client.settle()
            flapper = max(net.farmers[2:], key=lambda farmer: len(net.renter.store.stored_at(farmer.node_id)))
            made = len(stored(net))
            first = 0
            assert made == len(known(net)) == 18
            for turn in range(3):
                await net.kill(flapper.number)
                await lived(net, 20)
                first = first or len(known(net)) - made
                await net.restart(flapper.number)
                await lived(net, 10)
                assert len(known(net)) - made == first > 0, f"made again in absence {turn + 1}"
            await lived(net, 48)
            # And once it has stayed, one of the two goes.
            held = stored(net)
            assert len({(each.segment_id, each.index) for each in held}) == len(held)
            await assert_all_there(net, objects)

    run(main(), within_seconds=30 * DAY)


async def lived(net: Testnet, hours: int) -> None:
    for _ in range(hours):
        await net.pass_seconds(HOUR)
        await net.step_chores("announce", "refresh", "audit", "repair", "cancel")


def known(net: Testnet) -> set[ContractId]:
    """Every contract that was ever stored and is not forgotten."""
    return {name for name, each in net.renter.store._placements.items() if each.stored_ms}


class TellsSlowly(Adversary):
    """Honest, with a slow disk: it tells one loss at a time, nine seconds each."""

    def handler(self, method: str, honest: Handler) -> Handler:
        if method != AuditMethod.HEARTBEAT:
            return honest

        async def serve(exchange: Exchange, payload: bytes) -> None:
            class OneAtATime(Around):
                async def reply(self, data: bytes) -> None:
                    true = decode(HeartbeatReply, data)
                    if true.losses:
                        await asyncio.sleep(9)
                    more = true.more or len(true.losses) > 1
                    await self._inner.reply(encode(structs.replace(true, losses=true.losses[:1], more=more)))

            await honest(cast(Exchange, OneAtATime(exchange)), payload)

        return serve


def test_who_has_many_losses_to_tell_is_not_asked_before_it_told_them() -> None:
    async def main() -> None:
        options = agent_options(POLICY, spares=0, audits=AuditRules())
        async with Testnet(farmers=6, seed=10, options=options, cast={3: TellsSlowly}) as net:
            for number in range(9):
                await put_all(net, {f"{number}": net.dice(90_000)})
            unlucky, store = net.farmers[3], net.renter.store
            held = store.stored_at(unlucky.node_id)
            assert len(held) == 9
            await net.pass_seconds(2 * HOUR)
            await net.renter.agent.auditor.audit_all()
            for each in held:
                unlucky.disk.erase(each.root)
            await unlucky.farmer.scrub_everything()
            for _ in range(6):
                await net.renter.agent.auditor.audit_all()
                await net.pass_seconds(60)
            told = store.noted_losses(each.contract_id for each in held)
            assert len(told) == 9
            assert not any(each.note.note.asked for each in told.values())
            assert store.dossier(unlucky.node_id).score.crime is None

    run(main(), within_seconds=DAY)
