"""What a dishonest farmer is: the real one with one thing bent, honest in everything else until that thing matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stook.clock import Clock
from stook.farmer.settings import FarmerSettings
from stook.identity.keys import NodeKey
from stook.sim.dice import Dice
from stook.sim.network import SimNetwork
from stook.storage.ports import ShardStore
from stook.wire.carrier import Carrier
from stook.wire.endpoint import Handler
from stook.wire.limits import Limits


@dataclass(frozen=True, slots=True)
class Role:
    """What an adversary knows of the farmer it plays."""

    key: NodeKey
    host: str
    clock: Clock
    dice: Dice
    network: SimNetwork


class Adversary:
    """The honest farmer. Subclasses bend one or two of these; the testnet applies all of them."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.deeds = 0
        """How often it did what it is here for."""

    def settings(self, honest: FarmerSettings) -> FarmerSettings:
        """The settings it runs with."""
        return honest

    def limits(self, honest: Limits) -> Limits:
        """The wire limits it runs with."""
        return honest

    def shards(self, honest: ShardStore) -> ShardStore:
        """The store it reads from and writes to."""
        return honest

    def carrier(self, honest: Carrier) -> Carrier:
        """What its bytes pass on their way."""
        return honest

    def handler(self, method: str, honest: Handler) -> Handler:
        """How it serves a method."""
        return honest


Casting = Callable[[Role], Adversary]
"""Makes an adversary for its role: a class of this module, or one with options bound by `functools.partial`."""


class Around:
    """Passes on everything that a subclass does not bend."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
