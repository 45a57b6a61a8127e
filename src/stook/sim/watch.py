"""What an agent thinks of a simulated network's farmers, by number, and what it keeps where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stook.audits.containment import Silence
from stook.audits.score import Crime
from stook.ids import ContractId
from stook.sim.loop import START_MS
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import OutcomeKind, Placement, PlacementState

DAY_MS = 86_400_000
ALL = 1 << 30


@dataclass(frozen=True, slots=True)
class Opinion:
    """Farmers that are not in good standing."""

    crimes: Mapping[int, Crime]
    condemned_days: Mapping[int, float]
    """After how many days of the simulation."""
    silences: Mapping[int, Silence]
    """Of those that are not clear."""
    withholding: Mapping[int, int]
    """Those that never once gave anything back though they were asked, and when they last were."""

    @classmethod
    def of(cls, net: Testnet) -> Opinion:
        """As of now."""
        number_of = {farmer.node_id: farmer.number for farmer in net.farmers}
        dossiers = {number_of[each.farmer]: each for each in net.renter.store.dossiers()}
        guilty = {number: each for number, each in dossiers.items() if each.score.crime is not None}
        return cls(
            crimes={number: each.score.crime for number, each in guilty.items() if each.score.crime is not None},
            condemned_days={n: (each.score.condemned_ms - START_MS) / DAY_MS for n, each in guilty.items()},
            silences={n: each.silence.state for n, each in dossiers.items() if each.silence.state is not Silence.CLEAR},
            withholding={
                number_of[each.farmer]: each.last_ms
                for each in net.renter.store.farmer_stats(net.renter.clock.now_ms())
                if each.kind is OutcomeKind.RETRIEVE and not each.last_ok_ms
            },
        )

    def is_out(self, number: int) -> bool:
        """Whether a farmer is paid and given nothing any more: condemned, or gone."""
        return number in self.crimes or self.silences.get(number) is Silence.GONE

    def word(self, number: int) -> str:
        """What is thought of a farmer, in a word or two."""
        crime = self.crimes.get(number)
        return crime.value if crime is not None else self.silences.get(number, Silence.CLEAR).value


class Ledger:
    """Every shard that was ever stored, counted once for each contract."""

    def __init__(self) -> None:
        self._seen: set[ContractId] = set()
        self.placed_bytes = 0
        self.placed_shards = 0

    def look(self, net: Testnet) -> int:
        """Count what was stored since the last look; the bytes that are thought to be stored now."""
        stored = 0
        for placement in placements(net):
            size = placement.contract.terms.shard_size_bytes
            if placement.stored_ms and placement.contract_id not in self._seen:
                self._seen.add(placement.contract_id)
                self.placed_bytes += size
                self.placed_shards += 1
            if placement.state is PlacementState.STORED:
                stored += size
        return stored


def placements(net: Testnet) -> list[Placement]:
    """All that the renter knows of."""
    store = net.renter.store
    held = store.placements(store.segment_ids(2**62, b"", ALL))
    return [placement for each in held.values() for placement in each]
