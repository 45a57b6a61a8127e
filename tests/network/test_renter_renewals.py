"""A renewal whose reply is lost is asked for again in the same terms, which is all that the farmer can sign."""

from __future__ import annotations

from typing import cast

from sim_objects import assert_all_there, put_all, some_objects
from stook.contracts.messages import Method
from stook.errors import ReasonCode, RefusedError
from stook.shards.geometry import Policy
from stook.sim.adversary import Adversary, Around
from stook.sim.factories import agent_options
from stook.sim.loop import run
from stook.sim.testnet import Testnet
from stook.sim.watch import placements
from stook.storage.renter_ports import PlacementState
from stook.wire.endpoint import Exchange, Handler

DAY = 86_400.0


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
        policy = Policy(k=3, r=5, o=6, n=6)
        net = Testnet(
            farmers=8,
            seed=2,
            options=agent_options(policy, contract_days=40),
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
            stored = [each for each in placements(net) if each.state is PlacementState.STORED]
            assert stored
            assert {each.contract.terms.revision for each in stored} == {1}
            await net.pass_seconds(12 * DAY)
            await assert_all_there(net, objects)

    run(main(), within_seconds=60 * DAY)
