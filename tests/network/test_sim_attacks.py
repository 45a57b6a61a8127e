"""Every attack is run and loses, and nobody honest is taken for a liar meanwhile."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from stook.merkle import UNIT_BYTES
from stook.sim.attacks import goods, names, owners
from stook.sim.attacks.catalogue import ATTACKS
from stook.sim.attacks.owners import _settled_file, acquits, convicts
from stook.sim.hostile_renter import HostileRenter
from stook.sim.liars import DeniesContracts, ForgetsSome
from stook.sim.loop import run
from stook.sim.testnet import Testnet

SEED = 11
QUICK = [attack.name for attack in (*names.ATTACKS, *goods.ATTACKS, *owners.ATTACKS)]


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, Any]]:
    return {}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_loses(name: str, reports: dict[str, dict[str, Any]]):
    report = reports.setdefault(name, ATTACKS[name].report(SEED))
    assert report["attack"] == name
    assert report["caught"], report["detail"]
    assert report["honest_condemned"] == 0
    assert report["detail"].endswith(".")


@pytest.mark.parametrize("name", [*QUICK, "colluders"])
def test_one_seed_gives_one_report(name: str, reports: dict[str, dict[str, Any]]):
    assert ATTACKS[name].report(SEED) == reports.setdefault(name, ATTACKS[name].report(SEED))


def test_the_stranger_who_acquits_the_honest_convicts_liars():
    async def main() -> None:
        cast = {0: partial(ForgetsSome, share=1.0), 1: partial(DeniesContracts, share=1.0)}
        async with Testnet(farmers=3, seed=SEED, cast=cast) as net:
            owner = HostileRenter(net.world, "owner")
            for farmer, guilty in zip(net.farmers, (True, False, False), strict=True):
                contract = await owner.bring(farmer, owner.goods(4 * UNIT_BYTES))
                signed = owner.challenge(farmer, [contract], wanted=2)
                file = _settled_file(owner, signed, await owner.audit(farmer, signed))
                # Who says that it knows no such shard is a liar only beside its own storage receipt.
                assert convicts(file) is guilty, farmer
                assert acquits(file) is (farmer.adversary is None)
            await owner.close()

    run(main(), within_seconds=3600)
