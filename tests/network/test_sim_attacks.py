"""Every attack is run and loses, and nobody honest is taken for a liar meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from stook.sim.attacks.catalogue import ATTACKS

SEED = 11


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


@pytest.mark.parametrize("name", ATTACKS)
def test_one_seed_gives_one_report(name: str, reports: dict[str, dict[str, Any]]):
    assert ATTACKS[name].report(SEED) == reports.setdefault(name, ATTACKS[name].report(SEED))
