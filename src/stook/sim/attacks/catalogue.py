"""All attacks by name."""

from __future__ import annotations

from types import MappingProxyType

from stook.sim.attacks import goods, lies, names, overlay, owners
from stook.sim.attacks.outcome import Attack

_ALL = (*names.ATTACKS, *overlay.ATTACKS, *goods.ATTACKS, *owners.ATTACKS, *lies.ATTACKS)
ATTACKS = MappingProxyType({attack.name: attack for attack in _ALL})
"""In the order of the white paper, and then those that it does not have."""


def attack(name: str) -> Attack:
    """The attack of this name. Raises `KeyError`."""
    return ATTACKS[name]
