"""Months of a network whose farmers leave without a word: what is lost, and what repair costs.

The agent audits, takes the silent for gone, rebuilds what they held from ciphertext and places it with others, all by
its own timers. Newcomers take the places of those that left. Repair is counted twice: bytes placed anew for each byte
stored (shards, all n of them), and bytes moved both ways for each byte of data, which is what others publish.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, replace
from typing import Any

from stook.audits.containment import Silence
from stook.shards.geometry import Policy
from stook.sim.attacks.goods import put, unread
from stook.sim.factories import CARE, HOUR_SECONDS, PATIENT, RARELY, agent_options, farmer_settings
from stook.sim.life import DAY_SECONDS, MONTH_SECONDS, Fates, Life
from stook.sim.loop import run
from stook.sim.network import CALM
from stook.sim.signatures import Signatures
from stook.sim.testnet import Testnet
from stook.sim.watch import Ledger, Opinion

OBJECT_BYTES_PER_DATA_SHARD = 15_000
"""An object fills one segment of the smallest shards, 16 KiB."""
RESTARTS_PER_MONTH = 1.0


@dataclass(frozen=True, slots=True)
class Setting:
    """How large, how long, how many leave."""

    seed: int
    farmers: int = 200
    months: int = 12
    churn: float = 0.1
    """The share of farmers that leaves for good within a month."""
    code: str = "10/30"
    objects: int = 40
    signatures: Signatures | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.churn < 1:
            raise ValueError("churn is a share of the farmers, at least 0 and below 1")
        if min(self.months, self.objects) < 1 or self.farmers < Policy.parse(self.code).n + 2:
            raise ValueError("at least a month, an object, and two farmers more than the code has shards")

    @property
    def departures(self) -> float:
        """Departures of one farmer a month, as a rate."""
        return -math.log1p(-self.churn)


def foretold(policy: Policy, departures: float) -> tuple[float, float]:
    """What repair should cost a month, from rates alone: shard bytes placed for each byte stored, and bytes moved both
    ways for each byte of data.

    A segment goes from n shards to one below r, each going at the same rate; then k are read and the missing placed.
    With 30/46/80 and a mean life of 12 months the second is 0.31, the figure that Storj's white paper gives.
    """
    if not departures:
        return 0.0, 0.0
    cycle = sum(1 / (left * departures) for left in range(policy.r, policy.n + 1))
    placed = policy.n - policy.r + 1
    return placed / policy.n / cycle, (placed + policy.k) / policy.k / cycle


def churn(setting: Setting) -> dict[str, Any]:
    """Let the months pass. `lost` are objects that do not come back whole at the end."""
    begun = time.perf_counter()
    seconds = setting.months * MONTH_SECONDS
    result = run(_play(setting), within_seconds=seconds + 30 * DAY_SECONDS)
    return {**result, "seconds": round(time.perf_counter() - begun, 1)}


async def _play(setting: Setting) -> dict[str, Any]:
    policy = Policy.parse(setting.code)
    net = Testnet(
        farmers=setting.farmers,
        seed=setting.seed,
        path=CALM,
        options=agent_options(policy, care=replace(CARE, refresh_seconds=20 * HOUR_SECONDS)),
        settings=farmer_settings(chores=RARELY),
        limits=PATIENT,
        chores=True,
        signatures=setting.signatures,
    )
    net.renter.seeds = [farmer.peer for farmer in net.farmers[:2]]
    async with net:
        for farmer in net.farmers:
            await farmer.farmer.announce()
        await net.renter.agent.refresh()
        objects = {f"{number}": net.dice(policy.k * OBJECT_BYTES_PER_DATA_SHARD) for number in range(setting.objects)}
        await put(net, objects)
        ledger = Ledger()
        stored_days = float(ledger.look(net))
        stored, uploaded = stored_days, ledger.placed_bytes
        fewest, condemned, gone = policy.n, set[int](), set[int]()
        fates = Fates(restarts=RESTARTS_PER_MONTH, departures=setting.departures)
        async with Life(net, fates, net.dice.child("life")) as life:
            days = setting.months * 30
            for _ in range(days):
                await asyncio.sleep(DAY_SECONDS)
                stored_days += ledger.look(net)
                opinion = Opinion.of(net)
                living = {farmer.number for farmer in life.living}
                condemned |= living & set(opinion.crimes)
                gone |= {n for n in living if opinion.silences.get(n) is Silence.GONE}
                fewest = min(fewest, _fewest_alive(net, life))
            lost = await unread(net, objects)
        mean_stored = stored_days / (days + 1)
        repaired = ledger.placed_bytes - uploaded
        placed_ratio, moved_ratio = foretold(policy, setting.departures)
        return {
            "seed": setting.seed,
            "farmers": setting.farmers,
            "months": setting.months,
            "churn": setting.churn,
            "code": str(policy),
            "signatures": net.signatures.value,
            "objects": setting.objects,
            "lost": lost,
            "fewest_shards_alive": fewest,
            "departed": len(life.left),
            "restarts": life.restarts,
            "stored_bytes": round(stored),
            "repaired_bytes": repaired,
            "repaired_shards": ledger.placed_shards - setting.objects * policy.n,
            "repair_ratio": round(repaired / mean_stored / setting.months, 4),
            "repair_ratio_foretold": round(placed_ratio, 4),
            "moved_ratio_foretold": round(moved_ratio, 4),
            "false_positives": len(condemned),
            "living_taken_for_gone": len(gone),
        }


def _fewest_alive(net: Testnet, life: Life) -> int:
    """Of all segments, the fewest distinct shards that farmers have which did not leave."""
    store = net.renter.store
    here = {shard.root for farmer in life.living for shard in farmer.disk.scan()}
    held = store.placements(store.segment_ids(2**62, b"", 1 << 30))
    return min(len({one.root for one in each} & here) for each in held.values())
