"""Contracts that end: renewed in the terms first asked for, or their shards made again before they run out."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from sim_objects import assert_all_there, put_all, some_objects
from stook.contracts.messages import Method
from stook.errors import ReasonCode, RefusedError
from stook.shards.geometry import Policy
from stook.sim.adversary import Adversary, Around
from stook.sim.factories import agent_options
from stook.sim.loop import VirtualClock, run
from stook.sim.testnet import Testnet
from stook.sim.watch import placements
from stook.storage.renter_ports import Placement, PlacementState
from stook.wire.endpoint import Exchange, Handler

DAY = 86_400.0
POLICY = Policy(k=3, r=5, o=6, n=6)


def stored(net: Testnet) -> list[Placement]:
    return [each for each in placements(net) if each.state is PlacementState.STORED]


class SwallowsReplies(Adversary):
    """Renews truly, and the first reply about each contract is lost on the way."""

    def handler(self, method: str, honest: Handler) -> Handler:
        if method != Method.RENEW:
            return honest
        asked: set[bytes] = set()

        async def serve(exchange: Exchange, payload: bytes) -> None:
            class Swallows(Around):
                async def reply(self, data: bytes) -> None:
                    if payload not in asked:
                        asked.add(payload)
                        adversary.deeds += 1
                        raise RefusedError(ReasonCode.BUSY, "lost on the way")
                    await self._inner.reply(data)

            await honest(cast(Exchange, Swallows(exchange)), payload)

        adversary = self
        return serve


def test_a_renewal_whose_reply_was_lost_is_made_good() -> None:
    async def main() -> None:
        net = Testnet(
            farmers=8,
            seed=2,
            options=agent_options(POLICY, contract_days=40),
            cast=dict.fromkeys(range(8), SwallowsReplies),
        )
        async with net:
            objects = some_objects(net, (5_000, 120_000))
            await put_all(net, objects)
            await net.pass_seconds(31 * DAY)
            for _ in range(3):
                await net.step_chores("announce", "refresh", "renew")
                await net.pass_seconds(DAY / 2)
            assert sum(net.adversary(number).deeds for number in range(8)) >= 6
            assert {each.contract.terms.revision for each in stored(net)} == {1}
            await net.pass_seconds(12 * DAY)
            await assert_all_there(net, objects)

    run(main(), within_seconds=60 * DAY)


class RefusesRenewals(Adversary):
    """Keeps every shard to the last day, and renews nothing."""

    def handler(self, method: str, honest: Handler) -> Handler:
        if method != Method.RENEW:
            return honest

        async def serve(exchange: Exchange, payload: bytes) -> None:
            self.deeds += 1
            raise RefusedError(ReasonCode.PRICE_TOO_LOW, "I want more now")

        return serve


def test_a_renewal_whose_reply_was_lost_outlives_the_agent() -> None:
    async def main() -> None:
        net = Testnet(
            farmers=8,
            seed=3,
            options=agent_options(POLICY, contract_days=40),
            cast=dict.fromkeys(range(8), SwallowsReplies),
        )
        async with net:
            objects = some_objects(net, (5_000, 120_000))
            await put_all(net, objects)
            await net.pass_seconds(31 * DAY)
            await net.step_chores("announce", "refresh", "renew")
            asked = net.renter.store.renewals(each.contract_id for each in stored(net))
            assert len(asked) == len(stored(net)) > 0
            await net.restart_renter()
            # In other terms, which a new agent would ask for now, every farmer would refuse.
            await net.pass_seconds(DAY / 2)
            await net.step_chores("announce", "refresh", "renew")
            assert {each.contract.terms for each in stored(net)} == {each.terms for each in asked.values()}
            assert net.renter.store.renewals(asked) == {}

    run(main(), within_seconds=60 * DAY)


def test_what_nobody_renews_is_made_again_before_it_runs_out() -> None:
    async def main() -> None:
        net = Testnet(
            farmers=14,
            seed=4,
            options=agent_options(POLICY, contract_days=40),
            cast=dict.fromkeys(range(14), RefusesRenewals),
        )
        async with net:
            objects = some_objects(net, (5_000, 120_000))
            await put_all(net, objects)
            first = {each.contract_id for each in stored(net)}
            for _ in range(41):
                await net.pass_seconds(DAY)
                await net.step_chores("announce", "refresh", "audit", "renew", "repair", "cancel", "reap")
            now = net.renter.clock.now_ms()
            lasting = [each for each in stored(net) if each.contract.terms.end_ms > now + 30 * 86_400_000]
            assert len({(each.segment_id, each.index) for each in lasting}) == len(lasting) == len(first)
            assert not first & {each.contract_id for each in lasting}
            await assert_all_there(net, objects)
            # A week later what ran out is cancelled and forgotten; nobody holds anything for nothing.
            for _ in range(8):
                await net.pass_seconds(DAY)
                await net.step_chores("announce", "refresh", "audit", "repair", "cancel", "reap")
            assert {each.contract_id for each in placements(net)} == {each.contract_id for each in lasting}
            assert net.stored_bytes() == sum(each.contract.terms.shard_size_bytes for each in lasting)

    run(main(), within_seconds=90 * DAY)


def test_those_that_are_away_hold_up_nobody() -> None:
    async def main() -> None:
        options = agent_options(POLICY, contract_days=40)
        options = replace(options, care=replace(options.care, page=2))
        async with Testnet(farmers=8, seed=5, options=options) as net:
            objects = some_objects(net, (5_000, 120_000, 80_000))
            await put_all(net, objects)
            first = stored(net)
            away = {net.farmers[number].node_id for number in range(3)}
            await net.pass_seconds(31 * DAY)
            await net.step_chores("announce", "refresh")
            await net.kill(0, 1, 2)
            begun = net.renter.clock.now_ms()
            await net.step_chores("renew")
            revisions = {each.contract_id: each.contract.terms.revision for each in stored(net)}
            assert {each.farmer in away for each in first} == {True, False}
            assert revisions == {each.contract_id: int(each.farmer not in away) for each in first}
            # One deadline each, however many contracts there are.
            assert net.renter.clock.now_ms() - begun <= 3 * 35_000

    run(main(), within_seconds=60 * DAY)


def test_a_clock_that_is_wrong_by_months_has_nothing_erased() -> None:
    async def main() -> None:
        async with Testnet(farmers=8, seed=6, options=agent_options(POLICY, contract_days=40)) as net:
            objects = some_objects(net, (5_000, 120_000))
            await put_all(net, objects)
            await net.step_chores("announce", "refresh", "audit")
            before = {each.contract_id: each.state for each in placements(net)}
            right, net.renter.clock = net.renter.clock, VirtualClock(200 * 86_400_000)
            await net.restart_renter()
            for _ in range(3):
                await net.step_chores("refresh", "audit", "repair", "renew", "cancel", "tidy")
                await net.pass_seconds(DAY / 4)
            net.renter.clock = right
            await net.restart_renter()
            for _ in range(2):
                await net.step_chores("announce", "refresh", "audit", "repair", "renew", "cancel", "tidy")
            assert {each.contract_id: each.state for each in placements(net)} == before
            await assert_all_there(net, objects)

    run(main(), within_seconds=60 * DAY)
