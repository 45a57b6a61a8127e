"""All attacks by name."""

from __future__ import annotations

from types import MappingProxyType

from stook.sim.attacks import goods, lies, money, names, owners
from stook.sim.attacks.outcome import Attack

ATTACKS = MappingProxyType(
    {attack.name: attack for attack in (*names.ATTACKS, *goods.ATTACKS, *owners.ATTACKS, *lies.ATTACKS, *money.ATTACKS)}
)
"""In the order of the white paper, and then those that it does not have."""


def attack(name: str) -> Attack:
    """The attack of this name. Raises `KeyError`."""
    return ATTACKS[name]
